"""What a storage account does to blobs by itself, as Microsoft documents it: lifecycle and WORM.

Rules know age, prefix, type and tags of a blob, and nothing of what else needs it
(learn.microsoft.com, storage/blobs/lifecycle-management-policy-structure).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

# What pgkeep writes, and the value by which rules name it.
BLOCK_BLOB: Final = "blockBlob"
# The tier in which a blob cannot be read, as listings call it.
ARCHIVE_TIER: Final = "Archive"
# Rehydration at standard priority may take so long (storage/blobs/archive-rehydrate-overview).
REHYDRATION: Final = timedelta(hours=15)
_NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})


class LifecycleAction(StrEnum):
    """Of a rule, to the current version of a blob. Cool and cold blobs stay readable at once."""

    DELETE = "delete"
    ARCHIVE = "tierToArchive"
    COLD = "tierToCold"
    COOL = "tierToCool"


@dataclass(frozen=True, slots=True)
class AgeCondition:
    """Days that must have passed: Azure takes one of the first three; `tier_change` adds to it."""

    modification: float | None = None
    creation: float | None = None
    last_access: float | None = None
    tier_change: float | None = None

    def earliest(self, written: datetime, *, access_tracked: bool) -> datetime:
        """When a blob written then, and never touched since, can meet it at the earliest.

        Without tracking of accesses Azure counts from the day the policy was enabled, which says
        nothing of the blob: it may be today. A blob that was read lately lives longer than this.
        """
        days = [value for value in (self.modification, self.creation) if value is not None]
        if self.last_access is not None:
            days.append(self.last_access if access_tracked else 0.0)
        return written + timedelta(days=max(min(days, default=0.0), self.tier_change or 0.0))


@dataclass(frozen=True, slots=True)
class LifecycleRule:
    """`prefixes` begin with a container's name; none: all blobs. `tags` must all be on the blob."""

    name: str
    actions: Mapping[LifecycleAction, AgeCondition] = field(hash=False)
    enabled: bool = True
    prefixes: tuple[str, ...] = ()
    blob_types: tuple[str, ...] = (BLOCK_BLOB,)
    tags: tuple[tuple[str, str], ...] = ()

    def touches(self, prefix: str, tags: Mapping[str, str] = _NO_TAGS) -> bool:
        """Whether some block blob below `prefix`, container first, can fall under the rule.

        Filters are joined by AND, prefixes are case-sensitive and know no wildcards. pgkeep sets
        no index tags: a rule that asks for one passes its blobs over.
        """
        tagged = all(tags.get(name) == value for name, value in self.tags)
        return self.enabled and BLOCK_BLOB in self.blob_types and tagged and self._reaches(prefix)

    def _reaches(self, prefix: str) -> bool:
        if not self.prefixes:
            return True
        return any(prefix.startswith(own) or own.startswith(prefix) for own in self.prefixes)


@dataclass(frozen=True, slots=True)
class ContainerPolicy:
    """What keeps a container's blobs from being changed or deleted.

    `immutability_days` count from a blob's creation; None is no policy. `version_level`: versions
    carry policies of their own, and the container's is what new ones get.
    """

    immutability_days: int | None = None
    locked: bool = False
    legal_holds: tuple[str, ...] = ()
    protected_append: bool = False
    version_level: bool = False

    def kept_until(self, written: datetime) -> datetime | None:
        """Nobody deletes a blob written then before this. Only a locked policy is believed:
        whoever may write a lifecycle rule may also withdraw one that is not.
        """
        if self.immutability_days is None or not self.locked:
            return None
        return written + timedelta(days=self.immutability_days)


@dataclass(frozen=True, slots=True)
class AccountProtection:
    """What holds for all blobs of the account; `soft_delete_days` 0 means that it is off."""

    versioning: bool = False
    soft_delete_days: int = 0
    access_tracked: bool = False


@dataclass(frozen=True, slots=True)
class PolicySnapshot:
    """All policies of an account at one instant; a container that is not there has none."""

    rules: tuple[LifecycleRule, ...] = ()
    containers: Mapping[str, ContainerPolicy] = field(default_factory=dict, hash=False)
    protection: AccountProtection = field(default_factory=AccountProtection)

    def container(self, name: str) -> ContainerPolicy:
        return self.containers.get(name, ContainerPolicy())

    def touching(self, prefix: str) -> Iterator[LifecycleRule]:
        """Rules that delete or archive blobs below the prefix; cooler tiers cost only money."""
        hurtful = {LifecycleAction.DELETE, LifecycleAction.ARCHIVE}
        for rule in self.rules:
            if hurtful & rule.actions.keys() and rule.touches(prefix):
                yield rule

    def deletion(self, rule: LifecycleRule, prefix: str, written: datetime) -> datetime | None:
        """When the rule can first delete a blob written then; None: never.

        Lifecycle passes over what a policy or a legal hold protects, and comes again.
        """
        condition = rule.actions.get(LifecycleAction.DELETE)
        policy = self.container(prefix.partition("/")[0])
        if condition is None or policy.legal_holds:
            return None
        due = condition.earliest(written, access_tracked=self.protection.access_tracked)
        return max(due, policy.kept_until(written) or due)

    def archiving(self, rule: LifecycleRule, written: datetime) -> datetime | None:
        """When the rule can first archive such a blob; immutability does not keep it from that."""
        condition = rule.actions.get(LifecycleAction.ARCHIVE)
        if condition is None:
            return None
        return condition.earliest(written, access_tracked=self.protection.access_tracked)
