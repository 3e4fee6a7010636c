"""The guard: what a storage account would do to blobs that are still needed, before it does so.

Each rule is judged by itself, so that another rule never hides what this one would do; which of
them comes first is for `what_would_go`. Dates are the earliest: lifecycle starts within a day and
may run for days, but it never acts sooner.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import Final

from shared.domain.backup import BackupLabel
from shared.domain.finding_rules import FindingCode
from shared.domain.findings import Finding
from shared.domain.lifecycle_rules import REHYDRATION, LifecycleRule, PolicySnapshot
from shared.domain.needed_until import later

# Evidence is for people and alerts: of more labels, these many and their number.
_LABELS_TOLD: Final = 10
# What findings about the account as a whole are about.
ACCOUNT: Final = "account"


class NeedKind(StrEnum):
    """What kind of blobs; the value says it in a sentence."""

    PARENT = "backups that others stand on"
    BACKUP = "backups"
    WAL = "WAL"
    KEYS = "key records and the cluster's identity, without which nothing opens"
    REPORTS = "reports that prove backups"


@dataclass(frozen=True, slots=True)
class Need:
    """Blobs below `prefix`, container first, written from `written` on, that must stay `until`.

    `until` None is for good. `carries` are the labels of backups that would be lost with them.
    """

    kind: NeedKind
    prefix: str
    written: datetime
    until: datetime | None
    carries: tuple[BackupLabel, ...] = ()

    @property
    def container(self) -> str:
        return self.prefix.partition("/")[0]

    def outlives(self, at: datetime | None) -> bool:
        return at is not None and (self.until is None or at < self.until)


@dataclass(frozen=True, slots=True)
class Threat:
    """A rule does something to what is needed, at this time at the earliest."""

    rule: LifecycleRule
    need: Need
    at: datetime


@dataclass(frozen=True, slots=True)
class ArchivedBackup:
    """So many of the backup's blobs are in the archive tier now."""

    label: BackupLabel
    blobs: int


_DELETION_CODES: Final[Mapping[NeedKind, FindingCode]] = {
    NeedKind.PARENT: FindingCode.LIFECYCLE_WOULD_DELETE_PARENT,
    NeedKind.BACKUP: FindingCode.LIFECYCLE_WOULD_DELETE_BACKUP,
    NeedKind.WAL: FindingCode.LIFECYCLE_WOULD_DELETE_BACKUP,
    NeedKind.KEYS: FindingCode.LIFECYCLE_WOULD_DELETE_KEYS,
    NeedKind.REPORTS: FindingCode.LIFECYCLE_WOULD_DELETE_BACKUP,
}


def judge_lifecycle(
    policies: PolicySnapshot,
    needs: Sequence[Need],
    archived: Iterable[ArchivedBackup],
    now: datetime,
) -> tuple[Finding, ...]:
    """Findings about one cluster: what rules would do to its blobs, and what is archived now.

    One finding for each rule, container and kind of blob, however many backups it concerns.
    """
    return (
        *_deletion_findings(policies, needs, now),
        *_archiving_findings(policies, needs, now),
        *_archived_findings(needs, archived, now),
    )


def what_would_go(policies: PolicySnapshot, needs: Iterable[Need]) -> tuple[Threat, ...]:
    """What Azure would delete although it is needed, and when: of each need the earliest, by time.

    WAL comes once for each backup that needs it from its own start on.
    """
    first: dict[Need, Threat] = {}
    for threat in _deletions(policies, needs):
        known = first.setdefault(threat.need, threat)
        if threat.at < known.at:
            first[threat.need] = threat
    return tuple(sorted(first.values(), key=lambda one: (one.at, one.need.prefix)))


def _deletions(policies: PolicySnapshot, needs: Iterable[Need]) -> Iterator[Threat]:
    for need in needs:
        for rule in policies.touching(need.prefix):
            at = policies.deletion(rule, need.prefix, need.written)
            if at is not None and need.outlives(at):
                yield Threat(rule, need, at)


def _archivings(policies: PolicySnapshot, needs: Iterable[Need]) -> Iterator[Threat]:
    """Without what the same rule deletes no later: of two actions that are due, Azure deletes."""
    for need in needs:
        for rule in policies.touching(need.prefix):
            at = policies.archiving(rule, need.written)
            deleted = policies.deletion(rule, need.prefix, need.written)
            if at is not None and need.outlives(at) and (deleted is None or at < deleted):
                yield Threat(rule, need, at)


def _deletion_findings(
    policies: PolicySnapshot, needs: Iterable[Need], now: datetime
) -> Iterator[Finding]:
    for group in _grouped(_deletions(policies, needs)):
        first = group[0]
        code = _DELETION_CODES[first.need.kind]
        evidence = _evidence(group) | _second_chance(policies, group)
        yield Finding(code, _object(first), now, _fact("delete", first), evidence)


def _archiving_findings(
    policies: PolicySnapshot, needs: Iterable[Need], now: datetime
) -> Iterator[Finding]:
    for group in _grouped(_archivings(policies, needs)):
        first = group[0]
        fact = f"{_fact('archive', first)}; a restore then waits up to {_hours()} hours"
        # What has not happened yet makes no recovery slower today.
        wait = "rehydration_hours" if first.at <= now else "rehydration_hours_then"
        evidence = _evidence(group) | {wait: _hours()}
        yield Finding(FindingCode.TIERED_TOO_EARLY, _object(first), now, fact, evidence)


def _archived_findings(
    needs: Iterable[Need], archived: Iterable[ArchivedBackup], now: datetime
) -> Iterator[Finding]:
    needed = {label for need in needs for label in need.carries}
    hurt = sorted((one for one in archived if one.label in needed), key=lambda one: one.label)
    if not hurt:
        return
    blobs = sum(one.blobs for one in hurt)
    fact = f"{blobs} blobs of {len(hurt)} backups are in the archive tier and cannot be read"
    evidence = {
        "labels": _told([one.label for one in hurt]),
        "blobs": str(blobs),
        "rehydration_hours": _hours(),
    }
    yield Finding(FindingCode.TIERED_TOO_EARLY, "archived now", now, fact, evidence)


def _grouped(threats: Iterable[Threat]) -> Iterator[tuple[Threat, ...]]:
    """Threats of one finding, the earliest first."""
    ordered = sorted(threats, key=lambda one: (*_group(one), one.at))
    for _, group in groupby(ordered, key=_group):
        yield tuple(group)


def _group(threat: Threat) -> tuple[str, str, str]:
    return threat.rule.name, threat.need.container, threat.need.kind


def _object(threat: Threat) -> str:
    """Which rule, on what: a rule's name may hold any letters, but no slash."""
    return f"{threat.rule.name}/{threat.need.container}/{threat.need.kind.name.lower()}"


def _fact(deed: str, first: Threat) -> str:
    need, rule = first.need, first.rule.name
    return (
        f"from {first.at:%F} on lifecycle rule {rule!r} can {deed} {need.kind}, "
        f"in container {need.container}"
    )


def _evidence(group: Sequence[Threat]) -> dict[str, str]:
    first = group[0]
    lost = sorted({label for one in group for label in one.need.carries})
    needed: datetime | None = group[0].at
    for one in group:
        needed = later(needed, one.need.until)
    evidence = {
        "rule": first.rule.name,
        "container": first.need.container,
        "from": f"{first.at:%F}",
        "needed_until": "for good" if needed is None else f"{needed:%F}",
    }
    return evidence | ({"labels": _told(lost)} if lost else {})


def _second_chance(policies: PolicySnapshot, group: Sequence[Threat]) -> dict[str, str]:
    """What may bring a deleted blob back, and what only seems to hold it."""
    protection = policies.protection
    chance = {
        "versioning": "on" if protection.versioning else "off",
        "soft_delete_days": str(protection.soft_delete_days),
    }
    held = policies.container(group[0].need.container)
    if held.immutability_days is not None and not held.locked:
        chance["unlocked_immutability_days"] = str(held.immutability_days)
    return chance


def _told(labels: Sequence[BackupLabel]) -> str:
    told = ", ".join(label.text for label in labels[:_LABELS_TOLD])
    more = len(labels) - _LABELS_TOLD
    return told if more <= 0 else f"{told} and {more} more"


def _hours() -> str:
    return f"{REHYDRATION.total_seconds() / 3600:.0f}"
