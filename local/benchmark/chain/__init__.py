"""The chain part of the benchmark: incrementals after small and large changes, and their restore.

One full backup and six incrementals of the same changes for every contender; then the full alone
and the whole chain are restored in turn, so that what slows the machine slows all of them.
"""
