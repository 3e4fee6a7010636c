"""Comparing tables, against a model of transactions: no false alarm, no planted loss missed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from shared.domain.drill import (
    FIRST_NORMAL_XID,
    XID_SPACE,
    XID_WINDOW,
    Check,
    CheckOutcome,
    DrillVerdict,
    RestoredFacts,
    SnapshotFacts,
    TableFacts,
    TableState,
    TableVerdict,
    TableVerdictKind,
    compare_table,
    compare_tables,
    drill_verdict,
    tables_check,
)
from shared.domain.lsn import Lsn

TABLE = "app.public.orders"


@dataclass(eq=False)
class Transaction:
    xids: list[int]
    logged: bool = False  # its commit record is in the WAL
    ended: bool = False  # others see how it ended


@dataclass(eq=False)
class Row:
    raw_xmin: int
    creator: Transaction
    deleter: Transaction | None = None


@dataclass
class Server:
    """Transactions that commit in two steps, as PostgreSQL's do: first the WAL, then the others."""

    next_xid: int
    rows: list[Row] = field(default_factory=list)
    running: list[Transaction] = field(default_factory=list)
    committed: set[Transaction] = field(default_factory=set)
    logged: set[Transaction] = field(default_factory=set)
    completed_xid: int = 0

    def __post_init__(self) -> None:
        self.completed_xid = self.next_xid - 1

    def step(self, operation: str, pick: int) -> None:
        if operation == "begin":
            self.running.append(Transaction([self._xid()]))
        elif self.running:
            {
                "insert": self._insert,
                "insert in subtransaction": self._insert_below,
                "delete": self._delete,
                "log": self._log,
                "commit": self._commit,
                "abort": self._abort,
            }[operation](self.running[pick % len(self.running)], pick)

    def _xid(self) -> int:
        xid, self.next_xid = self.next_xid, after(self.next_xid)
        return xid

    def _insert(self, transaction: Transaction, pick: int) -> None:
        if not transaction.logged:
            self.rows.append(Row(transaction.xids[-1] % XID_SPACE, transaction))

    def _insert_below(self, transaction: Transaction, pick: int) -> None:
        if not transaction.logged:
            transaction.xids.append(self._xid())
            self._insert(transaction, pick)

    def _delete(self, transaction: Transaction, pick: int) -> None:
        free = [
            row
            for row in self.rows
            if row.deleter is None and (row.creator in self.committed or row.creator is transaction)
        ]
        if free and not transaction.logged:
            free[pick % len(free)].deleter = transaction

    def _log(self, transaction: Transaction, pick: int) -> None:
        transaction.logged = True
        self.logged.add(transaction)

    def _commit(self, transaction: Transaction, pick: int) -> None:
        self._log(transaction, pick)
        self.committed.add(transaction)
        self._end(transaction)

    def _abort(self, transaction: Transaction, pick: int) -> None:
        if transaction.logged:
            return
        for row in self.rows:
            row.deleter = None if row.deleter is transaction else row.deleter
        self._end(transaction)

    def _end(self, transaction: Transaction) -> None:
        self.running.remove(transaction)
        self.completed_xid = max(self.completed_xid, *transaction.xids)

    def visible(self, transactions: set[Transaction]) -> list[Row]:
        return [r for r in self.rows if r.creator in transactions and r.deleter not in transactions]

    def snapshot(self, lsn: int, start: SnapshotFacts | None = None) -> SnapshotFacts:
        xmax = after(self.completed_xid)
        listed = tuple(t.xids[0] for t in self.running if t.xids[0] < xmax)
        xmin = min((xmax, *listed))
        table = count(self.visible(self.committed), start.xmin if start else xmin, self.next_xid)
        return SnapshotFacts(
            "app", Lsn(lsn), Lsn(lsn), xmin, xmax, self.next_xid, listed, tables=(table,)
        )


def after(xid: int) -> int:
    """The next number; the first three of each epoch are never given (FullTransactionIdAdvance)."""
    return max(xid + 1, (xid + 1) // XID_SPACE * XID_SPACE + FIRST_NORMAL_XID)


def count(rows: Sequence[Row], xmin: int, horizon: int) -> TableFacts:
    """What the SQL of worker.postgres.table_facts counts."""
    distances = [(row.raw_xmin, (row.raw_xmin - xmin) % XID_SPACE) for row in rows]
    settled = sum(raw < FIRST_NORMAL_XID or d >= XID_WINDOW for raw, d in distances)
    ahead = sum(
        raw >= FIRST_NORMAL_XID and horizon - xmin <= d < XID_WINDOW for raw, d in distances
    )
    return TableFacts(TABLE, TableState.COUNTED, (16384,), len(rows), settled, ahead)


@dataclass
class History:
    start: SnapshotFacts
    end: SnapshotFacts
    restored: RestoredFacts
    rows: tuple[set[Row], set[Row], set[Row]]

    def verdict(self, change: Callable[[TableFacts], TableFacts] = lambda x: x) -> TableVerdict:
        tables = tuple(map(change, self.restored.tables))
        return compare_tables(self.start, self.end, replace(self.restored, tables=tables))[0]


OPERATIONS = ["begin", "insert", "insert in subtransaction", "delete", "log", "commit", "abort"]
steps = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 99)), max_size=40)


@st.composite
def histories(draw: st.DrawFn) -> History:
    server = Server(draw(st.sampled_from([700, 2**31 + 5, 2**32 - 6, 2**32 + 9, 5 * 2**32 + 3])))
    past = Transaction([FIRST_NORMAL_XID])
    server.committed.add(past)
    server.logged.add(past)
    for raw in draw(st.lists(st.one_of(st.just(2), st.integers(-8, 12)), max_size=6)):
        # rows frozen an epoch ago, many with numbers that are being given out again now
        server.rows.append(Row(raw if raw == 2 else (server.next_xid + raw) % XID_SPACE, past))

    def play() -> None:
        for operation, pick in draw(steps):
            server.step(operation, pick)

    play()
    start, at_start = server.snapshot(100), set(server.visible(server.committed))
    play()
    in_copy = set(server.logged)
    play()
    end, at_end = server.snapshot(300, start), set(server.visible(server.committed))
    copied = server.visible(in_copy)
    in_flight = {*end.in_progress, *range(end.xmax, end.horizon)}
    restored = RestoredFacts(
        Lsn(200),
        any(in_flight & set(transaction.xids) for transaction in in_copy),
        (count(copied, start.xmin, end.horizon),),
    )
    return History(start, end, restored, (at_start, at_end, set(copied)))


@given(histories())
def test_no_history_of_transactions_is_called_a_failure(history: History) -> None:
    verdict = history.verdict()

    assert verdict.kind in {TableVerdictKind.EQUAL, TableVerdictKind.WITHIN_BOUNDS}


@given(histories())
def test_equal_means_the_very_same_rows_at_all_three_places(history: History) -> None:
    assume(history.verdict().kind is TableVerdictKind.EQUAL)

    at_start, at_end, restored = history.rows

    assert at_start == restored == at_end


@given(histories(), st.integers(1, 5))
def test_a_row_missing_beyond_those_settled_at_the_end_is_lost(
    history: History, extra: int
) -> None:
    assume(not history.restored.in_flight_committed)
    lowest = history.end.tables[0].settled
    assume(lowest >= extra)

    verdict = history.verdict(lambda facts: replace(facts, settled=lowest - extra))

    assert verdict.kind is TableVerdictKind.LOST
    assert f"{extra} rows" in verdict.sentence
    assert verdict.failed


@given(histories(), st.integers(1, 5))
def test_more_settled_rows_than_at_the_start_are_phantoms(history: History, extra: int) -> None:
    highest = history.start.tables[0].settled

    verdict = history.verdict(lambda facts: replace(facts, settled=highest + extra))

    assert verdict.kind is TableVerdictKind.PHANTOM
    assert verdict.failed


@given(histories())
def test_a_row_of_a_transaction_that_began_after_the_end_is_a_phantom(history: History) -> None:
    ahead = history.start.tables[0].ahead

    verdict = history.verdict(lambda facts: replace(facts, ahead=ahead + 1))

    assert verdict.kind is TableVerdictKind.PHANTOM


def facts(rows: int = 5, **changes: object) -> TableFacts:
    quiet = TableFacts(TABLE, TableState.COUNTED, (16384,), rows, rows)
    return replace(quiet, **changes)  # type: ignore[arg-type]


def snapshot(lsn: int, **changes: object) -> SnapshotFacts:
    quiet = SnapshotFacts("app", Lsn(lsn), Lsn(lsn), 700, 700, 700, (), (facts(),))
    return replace(quiet, **changes)  # type: ignore[arg-type]


def test_deletions_by_a_transaction_still_committing_at_the_end_are_explained() -> None:
    verdict = compare_table(facts(), facts(), facts(rows=3), in_flight=True)

    assert verdict.kind is TableVerdictKind.WITHIN_BOUNDS
    assert "still committing" in verdict.sentence


def test_a_table_at_rest_is_equal() -> None:
    verdict = compare_table(facts(), facts(), facts(), in_flight=False)

    assert verdict.kind is TableVerdictKind.EQUAL
    assert verdict.rows == verdict.settled == (5, 5, 5)


def test_rows_that_came_and_went_are_never_called_equal() -> None:
    busy = facts(settled=4)

    verdict = compare_table(busy, busy, busy, in_flight=False)

    assert verdict.kind is TableVerdictKind.WITHIN_BOUNDS


@pytest.mark.parametrize(
    ("start", "end", "restored", "in_flight", "kind"),
    [
        ({}, {}, {"state": TableState.ABSENT}, False, "missing"),
        ({}, {}, {"state": TableState.ABSENT}, True, "undecided"),
        ({}, {}, {"state": TableState.UNREADABLE}, False, "unreadable"),
        ({}, {}, {"state": TableState.UNCOUNTED}, False, "undecided"),
        ({}, {}, {"identity": (1,)}, False, "undecided"),
        ({}, {"identity": (1,)}, {}, False, "undecided"),
        ({"state": TableState.ABSENT}, {}, {}, False, "undecided"),
        ({}, {"state": TableState.UNCOUNTED}, {}, False, "undecided"),
        ({"state": TableState.UNLOGGED}, {}, {}, False, "unlogged"),
        ({}, {"settled": 6}, {}, False, "undecided"),
    ],
)
def test_what_cannot_be_compared_is_said_to_be_so(
    start: dict[str, object],
    end: dict[str, object],
    restored: dict[str, object],
    in_flight: bool,  # noqa: FBT001 - a column of the table above
    kind: str,
) -> None:
    verdict = compare_table(
        facts(**start),  # type: ignore[arg-type]
        facts(**end),  # type: ignore[arg-type]
        facts(**restored),  # type: ignore[arg-type]
        in_flight=in_flight,
    )

    assert verdict.kind == kind


@pytest.mark.parametrize(("lsn", "kind"), [(99, "undecided"), (200, "equal"), (301, "undecided")])
def test_a_copy_outside_the_two_snapshots_proves_nothing(lsn: int, kind: str) -> None:
    restored = RestoredFacts(Lsn(lsn), in_flight_committed=False, tables=(facts(),))

    (verdict,) = compare_tables(snapshot(100), snapshot(300), restored)

    assert verdict.kind == kind


def test_too_many_transactions_during_the_backup_leave_it_undecided() -> None:
    restored = RestoredFacts(Lsn(200), in_flight_committed=False, tables=(facts(),))

    (verdict,) = compare_tables(
        snapshot(100), snapshot(300, horizon=700 + XID_WINDOW, xmax=700 + XID_WINDOW), restored
    )

    assert verdict.kind is TableVerdictKind.UNDECIDED


def test_a_table_that_the_copy_does_not_list_is_missing() -> None:
    restored = RestoredFacts(Lsn(200), in_flight_committed=False, tables=())

    (verdict,) = compare_tables(snapshot(100), snapshot(300), restored)

    assert verdict.kind is TableVerdictKind.MISSING


@given(histories())
def test_facts_survive_json_unchanged(history: History) -> None:
    adapter = TypeAdapter(SnapshotFacts)

    assert adapter.validate_json(adapter.dump_json(history.start)) == history.start


def check(outcome: CheckOutcome) -> Check:
    return Check("c", outcome, "", 0.0)


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        (["passed"], DrillVerdict.PROVEN),
        (["passed", "skipped"], DrillVerdict.PROVEN),
        (["passed", "inconclusive"], DrillVerdict.INCONCLUSIVE),
        (["passed", "inconclusive", "failed"], DrillVerdict.FAILED),
        (["skipped"], DrillVerdict.INCONCLUSIVE),
        ([], DrillVerdict.INCONCLUSIVE),
    ],
)
def test_a_drill_proves_only_what_was_looked_at(outcomes: list[str], verdict: DrillVerdict) -> None:
    assert drill_verdict(check(CheckOutcome(outcome)) for outcome in outcomes) is verdict


@pytest.mark.parametrize(
    ("kinds", "outcome"),
    [
        (["equal", "within_bounds"], CheckOutcome.PASSED),
        (["equal", "unlogged"], CheckOutcome.PASSED),
        (["equal", "undecided"], CheckOutcome.INCONCLUSIVE),
        (["undecided", "lost"], CheckOutcome.FAILED),
        (["unlogged"], CheckOutcome.SKIPPED),
        ([], CheckOutcome.SKIPPED),
    ],
)
def test_tables_become_one_check(kinds: list[str], outcome: CheckOutcome) -> None:
    verdicts = [TableVerdict(TABLE, TableVerdictKind(kind), "") for kind in kinds]

    result = tables_check(verdicts, 1.5)

    assert result.outcome is outcome
    assert TABLE not in result.detail
