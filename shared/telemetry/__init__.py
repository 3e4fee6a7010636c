"""Metrics and traces: the one table of names, what records them, and where they go."""
