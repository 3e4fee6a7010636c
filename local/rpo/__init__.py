"""How much is lost with a server? Killed, its disk deleted, restored: again and again.

Each run has a cluster of its own; the repository is one emulator for all of them.
"""
