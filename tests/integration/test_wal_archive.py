"""Putting WAL into the repository: write-once, under a recorded key; in a directory, in Azure."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from local.postgres_server import PostgresServer
from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName, WalPiece, segment_name
from shared.errors import (
    PgkeepError,
    StorageDenied,
    WalSegmentSizeInvalid,
)
from shared.jobs.wal_events import WalConflictSeen
from shared.repository import layout
from shared.repository.blob_store import BlobName
from tests.harness.fixed_clock import FixedClock
from tests.harness.wal_lab import HISTORY, LABEL, NOON, WalLab, segment
from tests.harness.wal_pages import MIB, WalWriter
from tests.harness.worker_services import WatchedStore
from worker.commands.services import Clocks
from worker.commands.wal_archive import PIECE_MAX, Stored, WalConflict
from worker.commands.wal_reader import (
    ReadSegment,
)
from worker.keys.key_ring import CompositeKeyRing, NoUsableKey

pytestmark = pytest.mark.integration


def test_a_real_segment_comes_back_as_it_was_and_a_listing_tells_what_it_holds(
    wal_lab: WalLab, source_cluster: PostgresServer
) -> None:
    with closing(source_cluster.connect()) as sql:
        sql.execute("DROP TABLE IF EXISTS wal_archive_test")
        sql.execute("CREATE TABLE wal_archive_test AS SELECT generate_series(1, 9999)")
        (file,) = sql.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone() or ("",)
    name, content = WalFileName.parse(file), (source_cluster.data / "pg_wal" / file).read_bytes()
    assert wal_lab.put(name, content) is Stored.NEW
    assert wal_lab.reader().read(name) == content
    told = wal_lab.metadata(name)
    assert told.size == len(content)
    assert told.first_commit is not None
    assert told.last_commit is not None
    assert told.first_commit <= told.last_commit
    assert wal_lab.reader().read_segment(name) == ReadSegment(content, complete=True)


def test_times_and_restore_points_stand_beside_the_sealed_bytes(wal_lab: WalLab) -> None:
    name, content = segment(3)
    wal_lab.put(name, content)
    told = wal_lab.metadata(name)
    assert (told.first_commit, told.last_commit) == (NOON, NOON + timedelta(minutes=3))
    (point,) = told.points
    assert (point.name, point.time) == ("release 7, täglich", NOON)
    assert wal_lab.services.store.read(wal_lab.blob(name), limit=MIB).find(content[100:200]) == -1


def test_w01_w10_the_same_again_is_success_without_a_second_blob(wal_lab: WalLab) -> None:
    name, content = segment()
    with wal_lab.archive() as archive:
        assert archive.put(name, content) is Stored.NEW
        before = wal_lab.stored()
        assert archive.put(name, bytearray(content)) is Stored.KNOWN
    assert wal_lab.put(name, content) is Stored.KNOWN
    assert wal_lab.stored() == before
    assert wal_lab.heard == []


def test_w02_another_content_under_a_name_is_refused_reported_and_changes_nothing(
    wal_lab: WalLab,
) -> None:
    name, content = segment()
    _, other = segment(filler=200)
    wal_lab.put(name, content)
    before = wal_lab.stored()
    known = wal_lab.metadata(name)
    with pytest.raises(WalConflict, match=known.sha256) as refused:
        wal_lab.put(name, other)
    assert wal_lab.stored() == before
    (event,) = wal_lab.heard
    assert isinstance(event, WalConflictSeen)
    assert (event.name, event.writer) == (str(name), "agent")
    assert event.stored_sha256 == known.sha256
    assert event.offered_sha256 in refused.value.fact


@pytest.mark.parametrize("item", [HISTORY, LABEL], ids=["w08 history", "w07 backup label"])
def test_w07_w08_small_files_are_stored_once_and_never_changed(
    wal_lab: WalLab, item: WalFileName
) -> None:
    assert wal_lab.put(item, b"1\t0/3000000\tno recovery target specified\n") is Stored.NEW
    assert wal_lab.put(item, b"1\t0/3000000\tno recovery target specified\n") is Stored.KNOWN
    with pytest.raises(WalConflict):
        wal_lab.put(item, b"1\t0/4000000\tno recovery target specified\n")
    assert wal_lab.reader().read(item).startswith(b"1\t0/3000000")


def test_w02_what_lost_its_metadata_is_not_taken_for_the_same(wal_lab: WalLab) -> None:
    name, content = segment()
    wal_lab.put(name, content)
    wal_lab.replaced(name, bytes)
    with pytest.raises(WalConflict, match="unknown"):
        wal_lab.put(name, content)
    (event,) = wal_lab.heard
    assert isinstance(event, WalConflictSeen)
    assert event.stored_sha256 is None


def test_w02_of_many_writers_of_one_name_one_wins_and_none_is_wrong(wal_lab: WalLab) -> None:
    name, content = segment()
    _, other = segment(filler=200)

    def attempt(offered: bytes) -> Stored | None:
        try:
            return wal_lab.put(name, offered)
        except WalConflict:
            return None

    offers = [content, other] * 3
    with ThreadPoolExecutor(6) as threads:
        outcomes = list(threads.map(attempt, offers))
    assert outcomes.count(Stored.NEW) == 1
    winner = offers[outcomes.index(Stored.NEW)]
    expected = [Stored.KNOWN if offered == winner else None for offered in offers]
    expected[outcomes.index(Stored.NEW)] = Stored.NEW
    assert outcomes == expected
    assert wal_lab.reader().read(name) == winner


def test_w20_a_nearly_empty_segment_is_small(local_wal_lab: WalLab) -> None:
    writer = WalWriter(Lsn(16 * MIB))
    writer.end_transaction(NOON)
    name = WalFileName.parse(segment_name(1, writer.start, 16 * MIB))
    local_wal_lab.put(name, writer.segment())
    assert local_wal_lab.stored()[local_wal_lab.blob(name).path].size < 20 * 1024


def test_w21_without_a_durable_key_record_no_wal_is_stored(wal_lab: WalLab) -> None:
    name, content = segment()

    def refuse(blob: BlobName) -> None:
        if blob.container == layout.EVIDENCE:
            raise StorageDenied("no right to write here")

    store = WatchedStore(wal_lab.services.store, before=refuse)
    with wal_lab.archive(store=store) as archive:
        for _ in range(2):
            with pytest.raises(StorageDenied):
                archive.put(name, content)
        assert wal_lab.stored() == {}
        store.before = lambda _name: None
        assert archive.put(name, content) is Stored.NEW
    assert [blob.container for blob in store.committed] == [layout.EVIDENCE, layout.WAL]


def test_w22_a_key_renewed_while_an_upload_runs_leaves_both_readable(
    local_wal_lab: WalLab, fixed_clock: FixedClock
) -> None:
    (first, content), (second, later) = segment(1), segment(2)
    began, may_end = threading.Event(), threading.Event()

    def hold(blob: BlobName) -> None:
        if blob == local_wal_lab.blob(first):
            began.set()
            assert may_end.wait(30)

    store = WatchedStore(local_wal_lab.services.store, before=hold)
    clocks = Clocks(now=fixed_clock, monotonic=fixed_clock.monotonic)
    with (
        local_wal_lab.archive(store=store, clocks=clocks) as archive,
        ThreadPoolExecutor(1) as thread,
    ):
        upload = thread.submit(archive.put, first, content)
        assert began.wait(30)
        fixed_clock.advance(timedelta(hours=24))
        archive.put(second, later)
        may_end.set()
        assert upload.result() is Stored.NEW
        archive.put(HISTORY, b"1\t0/3000000\n")
    kids = [local_wal_lab.metadata(item).kid for item in (first, second, HISTORY)]
    assert kids[0] != kids[1] == kids[2]
    reader = local_wal_lab.reader()
    assert [reader.read(first), reader.read(second)] == [content, later]


def test_a_session_of_less_than_a_day_has_one_key(
    local_wal_lab: WalLab, fixed_clock: FixedClock
) -> None:
    clocks = Clocks(now=fixed_clock, monotonic=fixed_clock.monotonic)
    with local_wal_lab.archive(clocks=clocks) as archive:
        for number in range(1, 4):
            archive.put(*segment(number))
            fixed_clock.advance(timedelta(hours=11))
    assert len(local_wal_lab.stored(layout.EVIDENCE)) == 2  # its record, and the cluster's document


def test_w15_a_large_segment_is_stored_in_pieces_only(local_wal_lab: WalLab) -> None:
    name, _ = segment()
    with pytest.raises(PgkeepError, match="in pieces"):
        local_wal_lab.put(name, bytes(PIECE_MAX + 1))
    with pytest.raises(PgkeepError, match="is given 5 bytes"):
        local_wal_lab.put(WalPiece.of(name, 0, 6), b"piece")
    with pytest.raises(WalSegmentSizeInvalid):
        local_wal_lab.put(name, b"no segment")
    assert local_wal_lab.stored() == {}


def test_a_writer_cannot_open_what_it_wrote_and_needs_not(local_wal_lab: WalLab) -> None:
    """It has no private key; whether a segment is the same, metadata tells."""
    services = replace(
        local_wal_lab.services,
        key_ring=CompositeKeyRing(local_wal_lab.services.key_ring._recipients),  # type: ignore[attr-defined]
    )
    writer = WalLab(services, local_wal_lab.cluster)
    name, content = segment()
    assert writer.put(name, content) is Stored.NEW
    assert writer.put(name, content) is Stored.KNOWN
    with pytest.raises(NoUsableKey):
        writer.reader().read(name)
    assert local_wal_lab.reader().read(name) == content
