"""Azure on one machine: PostgreSQL, Azurite and a Functions host, for demo, tests, development.

Nothing here runs in production; functions and worker do not know of it.
"""
