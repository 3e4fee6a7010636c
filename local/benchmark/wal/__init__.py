"""WAL beside the peers: pushed by an archiver, received over a slot, replayed in a recovery.

All contenders get the same segments, of a cluster that was really written to, and each a fresh
emulator. docs/how-to/run-the-benchmark.md tells what is compared and how fair it is.
"""
