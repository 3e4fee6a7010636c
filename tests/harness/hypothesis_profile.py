"""Property tests try the same examples in each run, however slow the machine.

To look for new ones: `scripts/test --hypothesis-profile=hunt tests/unit`.
"""

from hypothesis import settings

# What hangs is ended by pytest's own limit.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("hunt", deadline=None, max_examples=1000)
settings.load_profile("repeatable")
