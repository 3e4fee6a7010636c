"""A document-management database of any size, made from a seed, and a workload that changes it.

What demo, tests and benchmark back up: organizations, their users, documents with bodies of prose,
one summary for each document. `validate_recovery.sql` says what must hold at every commit.
"""
