"""The port to what a storage account does by itself: lifecycle rules, immutability, soft delete.

Two implementations (arm_account_policies, recorded_account_policies) pass one contract suite,
tests/contract/test_account_policies.py.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Lock
from typing import Protocol

from shared.domain.lifecycle_rules import (
    AccountProtection,
    ContainerPolicy,
    LifecycleRule,
    PolicySnapshot,
)
from shared.errors import Denied, Unavailable
from shared.repository import layout

# Everything but `state`, which is meant to change, and `dump`, which nothing writes yet.
GUARDED_CONTAINERS = ("full", "incremental", layout.WAL, layout.EVIDENCE)


class AccountPoliciesDenied(Denied):
    """The identity may not read the account's policies."""

    code = "account-policies-denied"
    hint = "Give it the role of docs/how-to/guard-the-lifecycle.md on the storage account."


class AccountPoliciesUnavailable(Unavailable):
    """The account's policies cannot be read now, or what was read makes no sense."""

    code = "account-policies-unavailable"
    hint = "Check [account] in the settings, and the way to Azure Resource Manager."


class AccountPolicies(Protocol):
    """Each raises AccountPoliciesDenied or AccountPoliciesUnavailable."""

    def lifecycle_rules(self) -> tuple[LifecycleRule, ...]:
        """In the order of the policy, disabled ones too; empty when the account has no policy."""
        ...

    def container_policy(self, container: str) -> ContainerPolicy:
        """Of a container that does not exist: that nothing keeps it."""
        ...

    def protection(self) -> AccountProtection: ...


def read_snapshot(policies: AccountPolicies) -> PolicySnapshot:
    """All of it; a policy that somebody changes meanwhile may be half old."""
    return PolicySnapshot(
        rules=policies.lifecycle_rules(),
        containers={name: policies.container_policy(name) for name in GUARDED_CONTAINERS},
        protection=policies.protection(),
    )


class PolicyReader:
    """Reads a snapshot, and gives the same one again for as long as it is fresh.

    A commit of ten thousand clusters in one hour shall not cost as many reads of one policy:
    Azure Resource Manager throttles by the subscription.
    """

    def __init__(
        self, policies: AccountPolicies, clock: Callable[[], datetime], *, fresh_for: timedelta
    ) -> None:
        self._policies = policies
        self._clock = clock
        self._fresh_for = fresh_for
        self._lock = Lock()
        self._known: tuple[datetime, PolicySnapshot] | None = None

    def read(self) -> PolicySnapshot:
        """Raises AccountPoliciesDenied, AccountPoliciesUnavailable; failures are not kept."""
        with self._lock:
            now = self._clock()
            if self._known is None or now - self._known[0] >= self._fresh_for:
                self._known = now, read_snapshot(self._policies)
            return self._known[1]
