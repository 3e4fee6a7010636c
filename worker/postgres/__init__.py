"""Talking to PostgreSQL, and understanding what it writes."""
