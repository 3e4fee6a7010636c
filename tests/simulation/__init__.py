"""A fleet in virtual time: the real control plane, in a world that goes wrong in every way."""
