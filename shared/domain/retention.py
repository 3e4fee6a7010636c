"""What may be deleted: pure rules over what a cluster's repository holds, and why.

A backup is wanted because it is young, because it is one of the last good ones, because a rhythm
asks for it, because the promised WAL begins with it, or because a person holds it. Whatever a
wanted backup needs stays with it: its chain and its WAL. Only good full backups count: verified or
proven, not suspect, not damaged, not from the future. All others only stay as long as they are
young, and never make another one go. One of which blobs are missing that nobody here deleted does
not go at all: what it lost may come back, and what is left may be all there is.

Nothing is deleted unless a good full backup stays whose WAL reaches without a gap to the newest
that is archived: the floor. What is newer than the floor stays as well.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from shared.domain.backup import BackupKind
from shared.domain.kept_backup import KeptBackup, RetentionPolicy
from shared.domain.lsn import Lsn
from shared.domain.retention_anchors import Anchors
from shared.domain.wal_branches import WalBranch
from shared.domain.wal_retention import WalNeeds, WalOrigin

_NO_FLOOR: Final = "no verified full backup has continuous WAL up to the newest that is archived"

# Of labels, so many are told.
_NAMED: Final = 3

Reasons = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reasons` say why it is kept, or why it may go."""

    backup: KeptBackup
    keep: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """`delete`: children before their parents, oldest chains first, at most the policy's number.

    `postponed`: how many would go as well, but for that number. `wal`: what of the archive is
    needed when that is done. Without a `floor`, a label, nothing at all may be deleted; `refused`
    says why, when something would have gone.
    """

    verdicts: tuple[Verdict, ...]
    delete: tuple[KeptBackup, ...] = ()
    postponed: int = 0
    wal: WalNeeds = field(default_factory=WalNeeds)
    floor: str | None = None
    refused: str | None = None

    @property
    def wal_before(self) -> Mapping[int, Lsn]:
        """By timeline: WAL that ends at or before this position is needed by no later backup."""
        return self.wal.known

    @property
    def digest(self) -> str:
        """Equal for two plans that delete the same backups and draw the same lines in the WAL."""
        lines = [
            *(f"backup {item.label} {item.digest}" for item in self.delete),
            *(f"wal {timeline} before {lsn}" for timeline, lsn in sorted(self.wal_before.items())),
            *(f"wal {one.timeline} {one.start} {one.end}" for one in sorted(self.wal.stretches)),
            f"refused {self.refused}",
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def plan_retention(
    backups: Iterable[KeptBackup],
    policy: RetentionPolicy,
    now: datetime,
    *,
    unreadable: Collection[str] = (),
    branches: Collection[WalBranch] = (),
) -> RetentionPlan:
    """The same backups, policy, archive and time always give the same plan.

    `unreadable` are labels of documents that nobody can believe: what they need is unknown, so
    that nothing may go as long as there is one; and so it is with a hold on what is not there, for
    nobody knows what it was meant for. More backups that are not good, or from the future, never
    make more of the others go, nor do more `branches`: without any, timelines are not told apart.
    """
    known = sorted(backups, key=lambda item: (item.at, item.label))
    anchors = Anchors.of(known, policy, now, branches)
    reasons = _reasons(known, policy, now, anchors)
    unwanted = [item for item in known if item.label not in reasons]
    astray = {*policy.holds} - {item.label for item in known} - {*unreadable}
    if unreadable:
        return _nothing(known, reasons, f"documents cannot be believed, of {_some(unreadable)}")
    if astray:
        return _nothing(known, reasons, f"the settings hold what is not there: {_some(astray)}")
    if anchors.floor is None:
        return _nothing(known, reasons, _NO_FLOOR, refused=bool(unwanted))
    ordered = _children_first(unwanted, known)
    delete = tuple(ordered[: policy.deletions_per_run])
    gone = {item.label for item in delete}
    return RetentionPlan(
        verdicts=tuple(_verdict(item, reasons, policy) for item in known),
        delete=delete,
        postponed=len(ordered) - len(delete),
        wal=wal_needs([item for item in known if item.label not in gone], policy, now, branches),
        floor=anchors.floor.label,
    )


def wal_needs(
    backups: Sequence[KeptBackup],
    policy: RetentionPolicy,
    now: datetime,
    branches: Collection[WalBranch] = (),
) -> WalNeeds:
    """Of backups that stay: those from within the promised time, and those that it begins with,
    need all that follows them; older ones what lies between their own start and end.
    """
    anchors = Anchors.of(backups, policy, now, branches)
    if anchors.floor is None:
        return WalNeeds()
    begin = now - timedelta(days=policy.wal_days)
    lasting = {item.label for item in backups if item.at >= begin or not anchors.reach_back}
    lasting |= {item.label for item in (*anchors.floors, *anchors.firsts, *anchors.bridges)}
    return WalNeeds(
        frozenset(_origin(item) for item in backups if item.label in lasting),
        frozenset(one for item in backups if item.label not in lasting for one in item.wal),
    )


def _origin(item: KeptBackup) -> WalOrigin:
    return WalOrigin(item.timeline, item.start_lsn)


def _some(labels: Collection[str]) -> str:
    return ", ".join(sorted(labels)[:_NAMED])


def _reasons(
    known: Sequence[KeptBackup], policy: RetentionPolicy, now: datetime, anchors: Anchors
) -> Reasons:
    """Why they are wanted, by label; what is missing there is not wanted."""
    reasons: Reasons = {}
    for item in known:
        for reason in _of_itself(item, policy, now):
            reasons.setdefault(item.label, []).append(reason)
    for item, reason in (*_of_anchors(anchors, policy), *_of_doubt(known, policy, anchors)):
        reasons.setdefault(item.label, []).append(reason)
    _keep_parents({item.label: item for item in known}, reasons)
    return reasons


def _of_itself(item: KeptBackup, policy: RetentionPolicy, now: datetime) -> Iterator[str]:
    if item.label in policy.holds:
        yield "held by the settings"
    if item.is_future(now):
        yield "dated in the future: neither counted nor deleted"
    elif now - item.at < timedelta(days=policy.days_of(item.kind)):
        yield f"younger than {policy.days_of(item.kind):g} days"
    if not item.whole:
        yield "blobs or keys of it are missing: neither counted nor deleted"


def _of_anchors(anchors: Anchors, policy: RetentionPolicy) -> Iterator[tuple[KeptBackup, str]]:
    for item in anchors.counted[-policy.keep_last :]:
        yield item, f"one of the last {policy.keep_last} good full backups"
    yield from _of_rhythms(anchors.counted, policy)
    for item in anchors.firsts:
        yield item, f"the last {policy.wal_days:g} days of WAL begin with it"
    for item in anchors.bridges:
        yield item, "within the promised time no earlier one reaches it by WAL"
    for item in anchors.floors:
        yield item, "the newest good full backup with continuous WAL"


def _of_doubt(
    known: Iterable[KeptBackup], policy: RetentionPolicy, anchors: Anchors
) -> Iterator[tuple[KeptBackup, str]]:
    """What is not good may still be the best there is."""
    sure = min((item.at for item in anchors.floors), default=None)
    for item in known:
        if item.good:
            continue
        if sure and item.at > sure:
            yield item, "newer than the newest good full backup with continuous WAL"
        if sure and not anchors.reach_back:
            yield item, f"no good full backup is {policy.wal_days:g} days old to stand in for it"


def _of_rhythms(
    counted: Sequence[KeptBackup], policy: RetentionPolicy
) -> Iterator[tuple[KeptBackup, str]]:
    rhythms: tuple[tuple[str, int, Callable[[datetime], tuple[int, ...]]], ...] = (
        ("week", policy.weekly, lambda at: tuple(at.isocalendar())[:2]),
        ("month", policy.monthly, lambda at: (at.year, at.month)),
        ("year", policy.yearly, lambda at: (at.year,)),
    )
    for name, count, period_of in rhythms:
        firsts: dict[tuple[int, ...], KeptBackup] = {}
        for item in counted:
            firsts.setdefault(period_of(item.at), item)
        for period in sorted(firsts, reverse=True)[:count]:
            yield firsts[period], f"the first good full backup of its {name}"


def _keep_parents(by_label: Mapping[str, KeptBackup], reasons: Reasons) -> None:
    waiting = [by_label[label] for label in reasons]
    while waiting:
        child = waiting.pop()
        parent = by_label.get(child.parent or "")
        if parent is None:
            continue
        if parent.label not in reasons:
            waiting.append(parent)
        reasons.setdefault(parent.label, []).append(f"{child.label} builds on it")


def _children_first(
    unwanted: Iterable[KeptBackup], known: Sequence[KeptBackup]
) -> list[KeptBackup]:
    """Whole chains, those with the oldest full first; in each the deepest link first."""
    by_label = {item.label: item for item in known}

    def order(item: KeptBackup) -> tuple[datetime, str, int, str]:
        chain = _chain(item, by_label)
        return chain[-1].at, chain[-1].label, -len(chain), item.label

    return sorted(unwanted, key=order)


def _chain(item: KeptBackup, by_label: Mapping[str, KeptBackup]) -> list[KeptBackup]:
    """The backup, its parent and so on, as far as they are known."""
    chain = [item]
    while (parent := by_label.get(chain[-1].parent or "")) is not None and parent not in chain:
        chain.append(parent)
    return chain


def _verdict(item: KeptBackup, reasons: Reasons, policy: RetentionPolicy) -> Verdict:
    if item.label in reasons:
        return Verdict(item, True, tuple(reasons[item.label]))
    return Verdict(item, False, tuple(_why_not(item, policy)))


def _why_not(item: KeptBackup, policy: RetentionPolicy) -> Iterator[str]:
    yield f"{item.kind} backups stay {policy.days_of(item.kind):g} days"
    if item.kind is BackupKind.FULL:
        yield "no rule asks for it" if item.good else f"it is {item.state}, and so does not count"
    else:
        yield "nothing that stays builds on it"


def _nothing(
    known: Iterable[KeptBackup], reasons: Reasons, why: str, *, refused: bool = True
) -> RetentionPlan:
    """Everything stays."""
    verdicts = (Verdict(item, True, tuple(reasons.get(item.label, [why]))) for item in known)
    return RetentionPlan(tuple(verdicts), refused=why if refused else None)
