"""How fresh the archive is: what may be claimed to be protected, and never more than that."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.freshness import (
    BackupBase,
    SlotState,
    WalFreshness,
    WalGap,
    WalSight,
    WriterReport,
    freshness,
    replayable,
)
from shared.domain.lsn import Lsn
from shared.domain.wal_inventory import ArchivedWal, WalInventory

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SLOT = SlotState("pgkeep", active=True, wal_status="reserved", keep_bytes=1 << 30)
MIB16 = 16 << 20


def archive(*stretches: tuple[int, int, int], commit: datetime | None = None) -> WalInventory:
    """Of (timeline, first, end) in segments; every blob's commits are at `commit`."""
    items = [
        ArchivedWal(timeline, Lsn(number * MIB16), Lsn((number + 1) * MIB16), commit, commit)
        for timeline, first, end in stretches
        for number in range(first, end)
    ]
    return WalInventory().adding(items)


def at(segment: float) -> Lsn:
    return Lsn(int(segment * MIB16))


def report(
    when: datetime,
    server: float | None,
    writer: Literal["receive", "agent"] = "receive",
    timeline: int = 1,
    **more: Any,
) -> WriterReport:
    server_lsn = None if server is None else at(server)
    return WriterReport(writer, "db/1", when, timeline, server_lsn, **more)


def seen(sight: WalSight, now: datetime = NOON) -> WalFreshness:
    return freshness("demo", sight, now)


class TestProtected:
    def test_an_idle_database_is_as_fresh_as_its_last_report(self) -> None:
        inventory = archive((1, 0, 3), commit=NOON - timedelta(hours=9))

        found = seen(WalSight(inventory, reports=[report(NOON - MINUTE, 2.5)]))

        assert found.protected_at == NOON - MINUTE
        assert found.lag_seconds == 60
        assert (found.timeline, found.through_lsn) == (1, at(3))
        assert found.through_commit == NOON - timedelta(hours=9)
        assert found.unarchived_bytes == 0

    def test_a_position_that_is_reached_exactly_counts(self) -> None:
        reports = [report(NOON - MINUTE, 3)]
        assert seen(WalSight(archive((1, 0, 3)), reports=reports)).protected_at == NOON - MINUTE

    def test_a_busy_one_is_as_fresh_as_the_newest_archived_commit(self) -> None:
        inventory = archive((1, 0, 3), commit=NOON - 2 * MINUTE)

        found = seen(WalSight(inventory, reports=[report(NOON - MINUTE, 3.25)]))

        assert found.protected_at == NOON - 2 * MINUTE
        assert found.unarchived_bytes == MIB16 // 4

    def test_what_the_writer_claims_of_the_archive_is_not_believed(self) -> None:
        sight = WalSight(archive((1, 0, 3)), reports=[report(NOON, 5, unarchived_bytes=0)])

        found = seen(sight)

        assert found.protected_at is None
        assert found.unarchived_bytes == 2 * MIB16

    def test_a_report_of_another_timeline_proves_nothing(self) -> None:
        sight = WalSight(archive((1, 0, 3)), reports=[report(NOON, 2, timeline=2)])
        assert seen(sight).protected_at is None

    def test_w19_a_segment_ahead_of_a_missing_one_protects_nothing(self) -> None:
        late = archive((1, 0, 7), commit=NOON - 5 * MINUTE).adding(
            archive_items((1, 8, 9), commit=NOON)
        )

        found = seen(WalSight(late, reports=[report(NOON, 8.5)]))

        assert found.through_lsn == at(7)
        assert found.protected_at == NOON - 5 * MINUTE

    def test_w04_when_the_missing_one_comes_both_count(self) -> None:
        healed = archive((1, 0, 7), (1, 8, 9)).adding(archive_items((1, 7, 8)))

        found = seen(WalSight(healed, reports=[report(NOON, 8.5)]))

        assert (found.through_lsn, found.protected_at, found.gaps) == (at(9), NOON, ())

    def test_a_backup_behind_a_gap_makes_what_follows_count(self) -> None:
        sight = WalSight(archive((1, 0, 4), (1, 6, 9)), reports=[report(NOON, 8)])
        assert seen(sight).through_lsn == at(4)

        base = BackupBase(1, at(6.5), NOON - MINUTE, whole=True)

        assert seen(replace(sight, backup=base)).protected_at == NOON
        assert [gap.start for gap in seen(replace(sight, backup=base)).gaps] == [at(4)]

    def test_without_any_log_a_whole_backup_protects_until_its_start(self) -> None:
        base = BackupBase(1, at(2), NOON - MINUTE, whole=True)
        assert seen(WalSight(backup=base)).protected_at == NOON - MINUTE
        assert seen(WalSight(backup=replace(base, whole=False))).protected_at is None
        assert not seen(WalSight(backup=base)).in_use

    def test_what_was_protected_stays_so_although_its_report_is_gone(self) -> None:
        sight = WalSight(archive((1, 0, 3)), reports=[report(NOON, 2.5)])
        before = seen(sight)
        later = replace(sight, reports=[report(NOON + MINUTE, 3.1)], previous=before)

        assert seen(later, NOON + 2 * MINUTE).protected_at == NOON
        assert seen(later, NOON + 2 * MINUTE).lag_seconds == 120
        shrunk = replace(later, inventory=archive((1, 0, 2)))
        assert seen(shrunk, NOON + 2 * MINUTE).protected_at is None

    def test_times_in_the_future_are_a_wrong_clocks(self) -> None:
        inventory = archive((1, 0, 3), commit=NOON + MINUTE)
        found = seen(WalSight(inventory, reports=[report(NOON + MINUTE, 2)]))
        assert (found.protected_at, found.lag_seconds) == (None, None)

    def test_a_cluster_of_which_nothing_is_protected_counts_from_the_first_look(self) -> None:
        first = seen(WalSight(reports=[report(NOON, 1)]))
        again = seen(WalSight(reports=[report(NOON, 1)], previous=first), NOON + MINUTE)
        assert again.unprotected_since == NOON

    @given(
        segments=st.sets(st.tuples(st.integers(1, 3), st.integers(0, 12)), max_size=25),
        server=st.floats(0, 13),
        timeline=st.integers(1, 3),
        base=st.none() | st.tuples(st.integers(1, 3), st.floats(0, 12)),
        looks=st.integers(1, 2),
    )
    def test_a_report_protects_only_what_can_be_replayed_without_a_hole(
        self,
        segments: set[tuple[int, int]],
        server: float,
        timeline: int,
        base: tuple[int, float] | None,
        looks: int,
    ) -> None:
        inventory = archive(*((line, number, number + 1) for line, number in segments))
        backup = base and BackupBase(base[0], at(base[1]), NOON - 9 * MINUTE, whole=False)
        sight = WalSight(inventory, backup or None, [report(NOON, server, timeline=timeline)])

        found = seen(sight)
        for _ in range(1, looks):
            found = seen(replace(sight, previous=found))

        if found.protected_at is None:
            return
        position = int(server * MIB16)
        begin = (backup.lsn if backup and backup.timeline == timeline else position) // MIB16
        needed = {(timeline, n) for n in range(begin, -(-position // MIB16))}
        assert needed <= segments | {(timeline, n) for n in range(begin)}

    @given(
        first=st.sets(st.integers(0, 9)), more=st.sets(st.integers(0, 9)), server=st.floats(0, 10)
    )
    def test_more_archive_never_protects_less(
        self, first: set[int], more: set[int], server: float
    ) -> None:
        base = BackupBase(1, at(0.5), NOON - 9 * MINUTE, whole=True)
        reports = [report(NOON, server)]
        less = archive(*((1, number, number + 1) for number in first))
        all_of_it = less.adding(archive_items(*((1, number, number + 1) for number in more)))

        before, after = (
            seen(WalSight(one, base, reports)).protected_at for one in (less, all_of_it)
        )

        assert before is not None
        assert after is not None
        assert before <= after


def archive_items(
    *stretches: tuple[int, int, int], commit: datetime | None = None
) -> list[ArchivedWal]:
    return [
        ArchivedWal(one.timeline, one.start, one.end, commit, commit)
        for one in archive(*stretches, commit=commit).ranges
    ]


class TestTimelines:
    def test_a_promoted_servers_timeline_goes_on_from_the_one_that_reaches_its_segment(
        self,
    ) -> None:
        inventory = archive((1, 0, 5), (2, 4, 8))
        assert [one.timeline for one in replayable(inventory, None)] == [1, 2]

        found = seen(WalSight(inventory, reports=[report(NOON, 7.5, timeline=2)]))

        assert (found.timeline, found.through_lsn, found.protected_at) == (2, at(8), NOON)
        assert found.gaps == ()

    def test_log_that_is_missing_before_the_branch_is_a_gap(self) -> None:
        inventory = archive((1, 0, 3), (2, 5, 8))

        found = seen(WalSight(inventory, reports=[report(NOON, 7.5, timeline=2)]))

        assert (found.timeline, found.through_lsn, found.protected_at) == (1, at(3), None)
        assert found.gaps == (WalGap(1, at(3), at(5), NOON),)

    def test_a_stray_copys_timeline_is_not_the_clusters(self) -> None:
        inventory = archive((1, 0, 5), (2, 4, 5))

        found = seen(WalSight(inventory, reports=[report(NOON, 4.5)]))

        assert (found.timeline, found.through_lsn, found.protected_at) == (1, at(5), NOON)

    def test_a_backup_of_the_new_timeline_needs_nothing_of_the_old(self) -> None:
        inventory = archive((1, 0, 3), (2, 5, 8))
        base = BackupBase(2, at(5.5), NOON - MINUTE, whole=False)

        found = seen(WalSight(inventory, base, [report(NOON, 7.5, timeline=2)]))

        assert (found.timeline, found.protected_at, found.gaps) == (2, NOON, ())
        assert [one.timeline for one in replayable(inventory, base)] == [2]


class TestGaps:
    def test_w03_a_gap_is_shown_and_remembers_when_it_was_seen_first(self) -> None:
        sight = WalSight(archive((1, 0, 5), (1, 6, 7)))
        first = seen(sight)
        again = seen(replace(sight, previous=first), NOON + MINUTE)

        assert first.gaps == again.gaps == (WalGap(1, at(5), at(6), NOON),)

    def test_one_that_is_being_filled_from_its_beginning_is_the_same(self) -> None:
        first = seen(WalSight(archive((1, 0, 3), (1, 7, 9))))
        half = archive((1, 0, 5), (1, 7, 9))

        [gap] = seen(WalSight(half, previous=first), NOON + MINUTE).gaps

        assert (gap.start, gap.since, gap.key) == (at(5), NOON, first.gaps[0].key)

    def test_a_reported_gap_counts_before_the_archive_shows_it_and_not_once_it_is_healed(
        self,
    ) -> None:
        told = WalGap(1, at(3), at(5), NOON - MINUTE, reported=True)
        before, during, healed = (
            seen(WalSight(archive(*stretches), reported_gaps=[told])).gaps
            for stretches in ([(1, 0, 3)], [(1, 0, 3), (1, 5, 6)], [(1, 0, 6)])
        )
        assert before == (told,)
        assert during == (told,)
        assert healed == ()


class TestReports:
    def test_the_newest_of_several_writers_says_where_the_server_is(self) -> None:
        reports = [report(NOON - MINUTE, 2.5, slot=SLOT), report(NOON, 4.5, "agent")]

        found = seen(WalSight(archive((1, 0, 3)), reports=reports))

        assert (found.reported_at, found.server_lsn) == (NOON, at(4.5))
        assert found.protected_at == NOON - MINUTE
        assert found.slot == SLOT

    def test_the_slot_of_a_receiver_that_is_long_gone_is_nobodys(self) -> None:
        reports = [report(NOON - timedelta(hours=2), 2, slot=SLOT), report(NOON, 2.5, "agent")]
        assert seen(WalSight(archive((1, 0, 3)), reports=reports)).slot is None

    def test_where_the_archive_cannot_tell_the_writers_number_stands(self) -> None:
        sight = WalSight(reports=[report(NOON, None, unarchived_bytes=7)])
        assert seen(sight).unarchived_bytes == 7
