"""The catalogue: an index in PostgreSQL, which can be rebuilt from the repository at any time."""
