"""Pure rules of backup and recovery: no I/O, no clock, no environment."""
