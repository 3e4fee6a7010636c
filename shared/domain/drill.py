"""What a drill concludes: its checks, their verdict, and whether restored tables hold the rows.

Tables are compared without stopping writers. Facts are taken on the source twice: at `start`,
before the backup's stream begins, and at `end`, after its stop LSN is known. So the restored copy
lies in between: it holds every transaction that `start` saw, and nothing that began after `end`.

A row version is *settled* when its creator was over before `start` (its number precedes `start`'s
xmin). No later transaction can add to the settled ones, each can only update or delete some:
    settled at start >= settled in the copy >= settled at end
More is a phantom, fewer is a loss. One excuse exists: a transaction commits in the WAL before
others see it commit, so one that `end` still saw running may have deleted rows in the copy.
Nothing can be said about one row that came after `start`: `equal` needs a table at rest.

Transaction numbers of rows have 32 bits. A number counts as unsettled in the `XID_WINDOW` above
`start`'s xmin, modulo 2^32, at all three places alike. A row frozen more than an epoch ago whose
old number falls into that window is merely not counted: never a false alarm. Rows with numbers
that nobody had been given (`ahead`) can only be such old ones; so they cannot grow in number.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.domain.field_types import LsnText

# Transactions that may begin between the oldest one running at `start`, and `end`: a quarter of
# what PostgreSQL lets exist at once (2^31), so three weeks at 300 a second.
XID_WINDOW: Final = 2**29
XID_SPACE: Final = 2**32
FIRST_NORMAL_XID: Final = 3  # access/transam.h; 1 is bootstrap, 2 is frozen (before 9.4)


class DrillPhase(StrEnum):
    """In the order in which they run. RECOVERY makes the backup consistent, REPLAY goes on."""

    PLAN = "plan"
    KEYS = "keys"
    FETCH_APPLY = "fetch_apply"
    RECOVERY = "recovery"
    REPLAY = "replay"
    OPEN = "open"
    CHECKS = "checks"


class DrillVerdict(StrEnum):
    PROVEN = "proven"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


class CheckOutcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `detail` is published: it names no table or database."""

    name: str
    outcome: CheckOutcome
    detail: str
    seconds: float


def drill_verdict(checks: Iterable[Check]) -> DrillVerdict:
    """Failed if anything failed; proven only if something passed and nothing is left open."""
    outcomes = {check.outcome for check in checks}
    if CheckOutcome.FAILED in outcomes:
        return DrillVerdict.FAILED
    if CheckOutcome.INCONCLUSIVE in outcomes or CheckOutcome.PASSED not in outcomes:
        return DrillVerdict.INCONCLUSIVE
    return DrillVerdict.PROVEN


class TableState(StrEnum):
    """How far counting a table got."""

    COUNTED = "counted"
    ABSENT = "absent"
    UNLOGGED = "unlogged"
    UNREADABLE = "unreadable"  # reading it failed
    UNCOUNTED = "uncounted"  # time, a lock or a missing right stood in the way


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One table at one place. `identity`: the OIDs of what was counted, each leaf of a partition
    tree. `settled` and `ahead` are numbers of rows as the module's docstring defines them.
    """

    table: str
    state: TableState
    identity: tuple[int, ...] = ()
    rows: int = 0
    settled: int = 0
    ahead: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """The tables of one database on the source, in one snapshot.

    `lsn_before` and `lsn_after` were read around taking it. `xmin`, `xmax` and `in_progress` are
    pg_current_snapshot()'s, 64 bits wide; `horizon` is the first number not yet given to any
    transaction, which may lie above xmax.
    """

    database: str
    lsn_before: LsnText
    lsn_after: LsnText
    xmin: int
    xmax: int
    horizon: int
    in_progress: tuple[int, ...]
    tables: tuple[TableFacts, ...]


@dataclass(frozen=True, slots=True)
class RestoredFacts:
    """The same tables in the copy, whose recovery ended at `lsn`.

    `in_flight_committed`: some transaction that ran at `end` had committed in the copy.
    """

    lsn: LsnText
    in_flight_committed: bool
    tables: tuple[TableFacts, ...]


class TableVerdictKind(StrEnum):
    EQUAL = "equal"
    WITHIN_BOUNDS = "within_bounds"
    LOST = "lost"
    PHANTOM = "phantom"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    UNLOGGED = "unlogged"
    UNDECIDED = "undecided"


_Finding = tuple[TableVerdictKind, str]
_FAILED: Final = frozenset(
    {
        TableVerdictKind.LOST,
        TableVerdictKind.PHANTOM,
        TableVerdictKind.MISSING,
        TableVerdictKind.UNREADABLE,
    }
)


@dataclass(frozen=True, slots=True)
class TableVerdict:
    """Numbers of rows at start, at end and restored; of these, settled ones. `sentence` does not
    name the table.
    """

    table: str
    kind: TableVerdictKind
    sentence: str
    rows: tuple[int, int, int] = (0, 0, 0)
    settled: tuple[int, int, int] = (0, 0, 0)

    @property
    def failed(self) -> bool:
        return self.kind in _FAILED


def compare_tables(
    start: SnapshotFacts, end: SnapshotFacts, restored: RestoredFacts
) -> tuple[TableVerdict, ...]:
    """One verdict for each table of `start`, in its order."""
    reason = _not_comparable(start, end, restored)
    if reason:
        return tuple(
            TableVerdict(facts.table, TableVerdictKind.UNDECIDED, reason) for facts in start.tables
        )
    in_flight = restored.in_flight_committed
    return tuple(
        compare_table(
            facts, _named(end.tables, facts), _named(restored.tables, facts), in_flight=in_flight
        )
        for facts in start.tables
    )


def compare_table(
    start: TableFacts, end: TableFacts, restored: TableFacts, *, in_flight: bool
) -> TableVerdict:
    """The rules of the module's docstring; `in_flight` as in RestoredFacts."""
    kind, sentence = (
        _without_counts(start, end, restored, in_flight=in_flight)
        or _impossible(start, end, restored, in_flight=in_flight)
        or _possible(start, end, restored)
    )
    return TableVerdict(
        start.table,
        kind,
        sentence,
        rows=(start.rows, end.rows, restored.rows),
        settled=(start.settled, end.settled, restored.settled),
    )


def tables_check(verdicts: Sequence[TableVerdict], seconds: float) -> Check:
    """All tables as one check: failed before inconclusive before passed; unlogged do not count."""
    kinds = [verdict.kind for verdict in verdicts]
    if any(verdict.failed for verdict in verdicts):
        outcome = CheckOutcome.FAILED
    elif TableVerdictKind.UNDECIDED in kinds:
        outcome = CheckOutcome.INCONCLUSIVE
    elif set(kinds) <= {TableVerdictKind.UNLOGGED}:
        outcome = CheckOutcome.SKIPPED
    else:
        outcome = CheckOutcome.PASSED
    counts = [f"{kinds.count(kind)} {kind}" for kind in TableVerdictKind if kind in kinds]
    return Check("row_counts", outcome, ", ".join(counts) or "no table is configured", seconds)


def _not_comparable(start: SnapshotFacts, end: SnapshotFacts, restored: RestoredFacts) -> str:
    if not start.lsn_after <= restored.lsn <= end.lsn_before:
        return (
            f"the copy ends at {restored.lsn}, not between the two counts on the source "
            f"at {start.lsn_after} and {end.lsn_before}"
        )
    if end.horizon - start.xmin >= XID_WINDOW:
        return (
            f"{end.horizon - start.xmin} transactions began meanwhile, too many to tell rows apart"
        )
    return ""


def _named(tables: Iterable[TableFacts], wanted: TableFacts) -> TableFacts:
    absent = TableFacts(wanted.table, TableState.ABSENT)
    return next((facts for facts in tables if facts.table == wanted.table), absent)


def _without_counts(
    start: TableFacts, end: TableFacts, restored: TableFacts, *, in_flight: bool
) -> _Finding | None:
    """What is already clear, or cannot be known, from the states and identities."""
    if TableState.UNLOGGED in {start.state, end.state}:
        return TableVerdictKind.UNLOGGED, "unlogged: a backup holds no rows of it"
    for when, facts in (("at start", start), ("at end", end)):
        if facts.state is not TableState.COUNTED:
            because = f": {facts.problem}" if facts.problem else ""
            return TableVerdictKind.UNDECIDED, f"{facts.state} on the source {when}{because}"
    if start.identity != end.identity:
        return TableVerdictKind.UNDECIDED, "replaced or repartitioned during the backup"
    return _not_counted_in_the_copy(start, restored, in_flight=in_flight)


def _not_counted_in_the_copy(
    start: TableFacts, restored: TableFacts, *, in_flight: bool
) -> _Finding | None:
    match restored.state:
        case TableState.ABSENT if not in_flight:
            return TableVerdictKind.MISSING, "not in the copy"
        case TableState.UNREADABLE:
            return TableVerdictKind.UNREADABLE, f"cannot be read: {restored.problem}"
        case TableState.COUNTED if restored.identity == start.identity:
            return None
        case TableState.COUNTED:
            return TableVerdictKind.UNDECIDED, "not the same table or partitions in the copy"
        case _:
            because = f": {restored.problem}" if restored.problem else ""
            return TableVerdictKind.UNDECIDED, f"{restored.state} in the copy{because}"


def _impossible(
    start: TableFacts, end: TableFacts, restored: TableFacts, *, in_flight: bool
) -> _Finding | None:
    """Numbers that no history of transactions explains."""
    if end.settled > start.settled:
        return TableVerdictKind.UNDECIDED, "the two counts on the source contradict one another"
    if restored.settled > start.settled:
        more = restored.settled - start.settled
        return TableVerdictKind.PHANTOM, f"{more} old rows too many: they were gone at start"
    if restored.ahead > start.ahead:
        more = restored.ahead - start.ahead
        return TableVerdictKind.PHANTOM, f"{more} rows of transactions that began after the end"
    if restored.settled < end.settled and not in_flight:
        fewer = end.settled - restored.settled
        return TableVerdictKind.LOST, f"{fewer} rows lost: there at start and at end, not restored"
    return None


def _possible(start: TableFacts, end: TableFacts, restored: TableFacts) -> _Finding:
    numbers = {facts.rows for facts in (start, end, restored)}
    numbers |= {facts.settled for facts in (start, end, restored)}
    if len(numbers) == 1:
        return TableVerdictKind.EQUAL, f"{start.rows} rows, unchanged during the backup"
    sentence = (
        f"{start.rows} rows at start, {end.rows} at end, {restored.rows} restored; "
        f"{end.settled} unchanged meanwhile, {restored.settled} of the old ones restored"
    )
    if restored.settled < end.settled:
        sentence += "; a transaction still committing at end explains the difference"
    return TableVerdictKind.WITHIN_BOUNDS, sentence
