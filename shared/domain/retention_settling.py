"""A brake: a policy that keeps less than one before it counts only when it has stood for a while.

A typing error in one number can make the whole past go in one night. Signed reports of the last
runs say what they went by; until the last longer one is old enough, the longer of each counts.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

from shared.domain.kept_backup import RetentionPolicy


def in_force(
    policy: RetentionPolicy, earlier: Iterable[RetentionPolicy], there: Collection[str]
) -> RetentionPolicy:
    """Of each promise the longest. A hold that was taken off settles, too, as long as its backup is
    `there`: what a hold names by mistake must not be held on to.
    """
    known = [policy, *earlier]
    forgotten = {label for one in known for label in one.holds if label in there}
    return replace(
        policy,
        full_days=max(one.full_days for one in known),
        incremental_days=max(one.incremental_days for one in known),
        wal_days=max(one.wal_days for one in known),
        keep_last=max(one.keep_last for one in known),
        weekly=max(one.weekly for one in known),
        monthly=max(one.monthly for one in known),
        yearly=max(one.yearly for one in known),
        holds=frozenset(policy.holds) | forgotten,
    )
