"""`pgkeep wal receive` from real servers: every byte, no byte too early, on every timeline."""

import logging
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from time import monotonic

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from local.azurite import EmulatedAccount
from local.postgres_initdb import BACKUP_USER, ClusterOptions
from local.postgres_server import PostgresServer
from shared.domain.cluster import cluster_name
from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileKind, WalFileName, WalPiece
from shared.errors import LeaseHeld
from shared.repository import layout
from shared.repository.backups import read_cluster
from shared.repository.blob_store import BlobName
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import MakeCluster, make_standby
from tests.harness.wal_receiver import (
    FLUSH_S,
    KEEPING,
    LIMIT_S,
    MIB,
    SEGMENT,
    SMALL,
    assert_archive_is,
    durable_end,
    flushed,
    inventory,
    position,
    reader,
    receiving,
    restart_lsn,
    wait_until_flushed,
    wait_until_sent,
    with_wal,
    write_wal,
)
from tests.harness.worker_services import CLUSTER, Site, WatchedStore, make_site
from worker.commands.cluster_identity import WrongSystem, register
from worker.commands.wal_archive import WalArchive, WalConflict
from worker.commands.wal_reporter import LogReporter
from worker.commands.wal_slot import SlotMissing
from worker.keys.generate import KeySet

pytestmark = pytest.mark.integration


@pytest.fixture
def server(make_cluster: MakeCluster) -> PostgresServer:
    """With segments of 1 MiB, all of which it keeps."""
    return make_cluster(SMALL)


@pytest.fixture
def small(place: Path, key_set: KeySet, server: PostgresServer) -> Site:
    """An empty directory repository for `server`."""
    return with_wal(make_site(place / "site", key_set, server, database="postgres"))


def pg_wal(server: PostgresServer) -> Path:
    return server.data / "pg_wal"


def segments(store: WatchedStore) -> list[str]:
    """Names in `wal` that were committed, without their folder."""
    names = [name for name in store.committed if name.container == layout.WAL]
    return [name.path.rpartition("/")[2] for name in names]


class Gate:
    """Holds commits back whose path matches, until it is opened."""

    def __init__(self, *wanted: str) -> None:
        self.reached, self.opened = Event(), Event()
        self._wanted = wanted

    def __call__(self, name: BlobName) -> None:
        if name.container == layout.WAL and any(text in name.path for text in self._wanted):
            self.reached.set()
            assert self.opened.wait(LIMIT_S)


@pytest.mark.postgres
def test_the_archive_is_what_the_server_and_pg_receivewal_wrote(
    make_cluster: MakeCluster, key_set: KeySet, place: Path, tmp_path: Path
) -> None:
    server = make_cluster(ClusterOptions(settings=KEEPING))
    site = with_wal(make_site(place / "site", key_set, server, database="postgres"))
    server.query("SELECT pg_create_physical_replication_slot('theirs', true)")
    began = position(server)
    with receiving(site):
        write_wal(server, 40)
        server.query("SELECT pg_switch_wal()")
        end = write_wal(server)
        wait_until_flushed(server, end)
    assert (restart_lsn(server) or 0) >= end, "the last report came before the end of the stream"
    start = assert_archive_is(site, pg_wal(server), end)
    assert start <= began
    _run_pg_receivewal(server, tmp_path, until=Lsn(end - end % SEGMENT))
    theirs = sorted(path for path in tmp_path.iterdir() if path.suffix != ".partial")
    archive = reader(site)
    assert len(theirs) >= 3
    for path in theirs:
        assert archive.read(WalFileName.parse(path.name)) == path.read_bytes(), path.name


def _run_pg_receivewal(server: PostgresServer, directory: Path, *, until: Lsn) -> None:
    program = str(server.programs / "pg_receivewal")
    command = [program, "-d", server.dsn(), "-D", str(directory), "--slot", "theirs", "--no-loop"]
    subprocess.run([*command, "--endpos", str(until)], check=True, capture_output=True)


@pytest.mark.parametrize("megabytes", [1, 64, pytest.param(128, marks=pytest.mark.slow)])
def test_segments_of_other_sizes_are_received_alike(
    make_cluster: MakeCluster, key_set: KeySet, place: Path, megabytes: int
) -> None:
    """W15. One above 64 MiB exists in pieces only."""
    server = make_cluster(ClusterOptions(wal_segment_mb=megabytes, settings=KEEPING))
    site = with_wal(make_site(place / "site", key_set, server, database="postgres"))
    with receiving(site):
        write_wal(server, 3)
        server.query("SELECT pg_switch_wal()")
        end = write_wal(server, 2)
        wait_until_flushed(server, end)
    assert_archive_is(site, pg_wal(server), end, segment_size=megabytes * MIB)


def test_wal_goes_to_azure_as_well(
    azurite_account: EmulatedAccount, server: PostgresServer, key_set: KeySet, place: Path
) -> None:
    make = make_site(place / "site", key_set, server, storage=azurite_account, database="postgres")
    site = with_wal(make)
    with receiving(site):
        wait_until_flushed(server, write_wal(server, 2))
    with receiving(site):  # goes on where the first one ended
        end = write_wal(server, 2)
        wait_until_flushed(server, end)
    assert_archive_is(site, pg_wal(server), end, segment_size=MIB)


def test_a_commit_is_durable_within_flush_seconds_however_busy_the_server(
    small: Site, server: PostgresServer
) -> None:
    store = WatchedStore(small.services().store)
    with receiving(small, store=store), server.connect() as connection:
        wait_until_flushed(server, position(server))
        connection.execute("CREATE TABLE busy (n int)")
        ((lsn,),) = connection.execute("SELECT pg_current_wal_flush_lsn()::text")
        committed, pause, written = monotonic(), Event(), 0
        while (flushed(server) or 0) < Lsn.parse(lsn):
            connection.execute("INSERT INTO busy VALUES (1)")  # new data must not put it off
            written += 1
            assert monotonic() - committed < FLUSH_S + 5
            pause.wait(0.02)
        assert written > 3
        assert monotonic() - committed >= FLUSH_S / 3, "tails are not stored at once"
    pieces = [name for name in segments(store) if name.endswith(".partial")]
    assert pieces
    assert all(WalPiece.of(*_taken_apart(name)) for name in pieces)


def _taken_apart(name: str) -> tuple[WalFileName, int, int]:
    segment, span, _ = name.split(".")
    start, stop = (int(text, 16) for text in span.split("-"))
    return WalFileName.parse(segment), start, stop


def test_metadata_tells_commits_and_restore_points_of_segments_and_tails(
    small: Site, server: PostgresServer
) -> None:
    with receiving(small), server.connect() as connection:
        write_wal(server, 2)
        ((earlier,),) = connection.execute("SELECT now()")
        connection.execute("SELECT pg_create_restore_point('before the storm')")
        connection.execute("CREATE TABLE storm (n int)")
        ((later, lsn),) = connection.execute("SELECT now(), pg_current_wal_flush_lsn()::text")
        wait_until_flushed(server, Lsn.parse(lsn))
    newest = inventory(small, MIB).newest(1)
    assert newest is not None
    assert newest.last_commit is not None
    assert earlier < newest.last_commit < later
    assert [point.name for point in newest.points] == ["before the storm"]
    assert newest.first_commit is not None
    assert newest.first_commit < earlier


def test_the_slot_never_passes_what_is_durable_whatever_order_that_becomes(
    small: Site, server: PostgresServer
) -> None:
    """W19: later segments are durable before an earlier one; only the contiguous part counts."""
    number = position(server) // MIB + 1
    gate = Gate(_segment(1, Lsn(number * MIB)))
    store = WatchedStore(small.services().store, before=gate)
    with receiving(small, store=store):
        end = write_wal(server, 10)
        assert gate.reached.wait(LIMIT_S)
        held = Lsn(number * MIB)
        wait_until(
            lambda: len(inventory(small, MIB).of(1)) == 2, LIMIT_S, "later segments are durable"
        )
        for _ in range(5):
            write_wal(server)
            assert (restart_lsn(server) or 0) <= held
            assert (flushed(server) or 0) <= held
            assert (restart_lsn(server) or 0) <= durable_end(small, segment_size=MIB)
        gate.opened.set()
        wait_until_flushed(server, end)
        assert (restart_lsn(server) or 0) <= durable_end(small, segment_size=MIB)
    assert_archive_is(small, pg_wal(server), end, segment_size=MIB)


def test_a_synchronous_commit_returns_when_it_is_in_the_repository_and_not_before(
    small: Site, server: PostgresServer
) -> None:
    site = with_wal(small, synchronous=True, flush_seconds=3600)
    gate = Gate("/00000001/")
    gate.opened.set()
    with receiving(site, store=WatchedStore(small.services().store, before=gate)):
        wait_until_flushed(server, position(server))
        _commits_wait_for_pgkeep(server)
        server.query("CREATE TABLE safe (n int)")
        gate.opened.clear()
        with ThreadPoolExecutor(1) as executor:
            commit = executor.submit(server.query, "INSERT INTO safe VALUES (1)")
            assert gate.reached.wait(LIMIT_S)
            with pytest.raises(TimeoutError):
                commit.result(0.5)
            gate.opened.set()
            commit.result(LIMIT_S)
        assert durable_end(site, segment_size=MIB) >= (flushed(server) or 0)
        _commits_wait_for_nobody(server)


def _commits_wait_for_pgkeep(server: PostgresServer) -> None:
    server.configure({"synchronous_standby_names": "pgkeep"})
    server.reload()
    query = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
    wait_until(lambda: server.query(query), LIMIT_S, "commits wait for the receiver")


def _commits_wait_for_nobody(server: PostgresServer) -> None:
    server.configure({"synchronous_standby_names": ""})
    server.reload()
    query = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'async'"
    wait_until(lambda: server.query(query), LIMIT_S, "commits wait for nobody")


def test_what_was_acknowledged_survives_a_server_that_dies(
    small: Site, server: PostgresServer
) -> None:
    """RPO 0: each commit that returned is in the archive, although the host is gone."""
    site = with_wal(small, synchronous=True)
    acknowledged: list[int] = []
    with receiving(site) as receiver:
        wait_until_flushed(server, position(server))
        _commits_wait_for_pgkeep(server)

        def commit() -> None:
            with suppress(psycopg.Error), server.connect() as connection:
                for n in range(100_000):
                    connection.execute(
                        "SELECT pg_logical_emit_message(true, 'rpo', %s)", [f"<commit {n}>"]
                    )
                    acknowledged.append(n)

        with ThreadPoolExecutor(1) as executor:
            committing = executor.submit(commit)
            wait_until(lambda: len(acknowledged) >= 30, LIMIT_S, "commits return")
            server.kill()
            committing.result(LIMIT_S)
        assert not receiver.done.done(), "it goes on trying"
    archive, content = reader(site), b""
    for stretch in inventory(site, MIB).of(1):
        for number in range(stretch.start // MIB, -(-stretch.end // MIB)):
            content += archive.read(WalFileName(WalFileKind.SEGMENT, 1, 0, number))
    missing = [n for n in acknowledged if b"<commit %d>" % n not in content]
    assert missing == []


def test_a_promotion_is_followed_with_both_segments_and_the_history(
    make_cluster: MakeCluster, key_set: KeySet, place: Path
) -> None:
    """As pg_receivewal's 020_pg_receivewal.pl; W07, W08."""
    primary = make_cluster(SMALL)
    write_wal(primary)
    with make_standby(primary, place / "standby") as standby:
        made = make_site(place / "site", key_set, standby, database="postgres")
        site = with_wal(made, flush_seconds=3600)  # an end stores what came, whatever the time
        with receiving(site):
            before = write_wal(primary, 2)
            wait_until_sent(standby, before)
            assert standby.query("SELECT pg_promote(true, 30)") == [(True,)]
            after = write_wal(standby, 2)
            wait_until_sent(standby, after)
        assert (restart_lsn(standby) or 0) >= after
        (name,) = (path.name for path in pg_wal(standby).glob("*.history"))
        history = WalFileName.parse(name)
        assert reader(site).read(history) == (pg_wal(standby) / name).read_bytes()
        switch = Lsn.parse((pg_wal(standby) / name).read_text().split()[1])
        assert durable_end(site, 1, MIB) == switch, "the old timeline up to its very end"
        assert_archive_is(site, pg_wal(primary), before, segment_size=MIB)
        assert_archive_is(site, pg_wal(standby), after, timeline=2, segment_size=MIB)
        other = _archiving_another_promotion(site, place / "another", history)
        with pytest.raises(WalConflict), receiving(other) as receiver:
            receiver.done.result(LIMIT_S)


def _segment(timeline: int, lsn: Lsn) -> str:
    return f"{timeline:08X}{0:08X}{lsn // MIB:08X}"


def _archiving_another_promotion(site: Site, repository: Path, history: WalFileName) -> Site:
    """The same cluster in another repository, that has another history of this name."""
    known = read_cluster(site.services().store, cluster_name(CLUSTER), site.services().pinned)
    assert known is not None
    other = site.changed(repository={"path": str(repository)})
    identity = register(other.services(), cluster_name(CLUSTER), known.system_identifier)
    with WalArchive(other.services(), identity, LogReporter(), "agent") as archive:
        archive.put(history, b"1\t0/1000000\tanother promotion\n")
    return other


def test_a_failover_is_followed_without_a_gap(
    make_cluster: MakeCluster, key_set: KeySet, place: Path
) -> None:
    primary = make_cluster(SMALL)
    write_wal(primary)
    with make_standby(primary, place / "standby") as standby:
        site = with_wal(make_site(place / "site", key_set, primary, database="postgres"))
        site = site.changed(cluster={"dsn": _either(primary, standby)})
        with receiving(site):
            before = write_wal(primary, 2)
            wait_until_flushed(primary, before)
            wait_until(lambda: position(standby) >= before, LIMIT_S, "the standby has it, too")
            primary.kill()
            assert standby.query("SELECT pg_promote(true, 30)") == [(True,)]
            after = write_wal(standby, 3)
            wait_until_flushed(standby, after)
        history = next(pg_wal(standby).glob("00000002.history")).read_text()
        switch = Lsn.parse(history.split()[1])
        assert durable_end(site, 1, MIB) >= switch
        assert_archive_is(site, pg_wal(primary), before, segment_size=MIB)
        begins = assert_archive_is(site, pg_wal(standby), after, timeline=2, segment_size=MIB)
        assert begins <= switch, "nothing is missing between the timelines"


def _either(one: PostgresServer, other: PostgresServer) -> str:
    return make_conninfo(
        one.dsn("postgres", BACKUP_USER),
        host="127.0.0.1,127.0.0.1",
        port=f"{one.port},{other.port}",
        target_session_attrs="read-write",
    )


def test_without_a_slot_and_the_right_to_make_one_it_ends(
    small: Site, server: PostgresServer
) -> None:
    site = with_wal(small, create_slot=False, slot="mine")
    with pytest.raises(SlotMissing, match="mine"), receiving(site) as receiver:
        receiver.done.result(LIMIT_S)
    assert server.query("SELECT slot_name FROM pg_replication_slots") == []
    server.query("SELECT pg_create_physical_replication_slot('mine', true)")
    begin = restart_lsn(server, "mine")
    assert begin is not None
    end = write_wal(server, 3)
    with receiving(site):
        wait_until_flushed(server, end)
    start = assert_archive_is(site, pg_wal(server), end, segment_size=MIB)
    assert start == begin - begin % MIB, "an empty archive begins where the slot holds back WAL"


def test_a_gap_is_reported_and_archiving_goes_on(
    make_cluster: MakeCluster, key_set: KeySet, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """W03: the slot was given up while nobody received; its successor holds WAL again."""
    settings = {"max_slot_wal_keep_size": "1MB", "wal_keep_size": "0", "max_wal_size": "2MB"}
    quick = {"min_wal_size": "2MB", "checkpoint_timeout": "3600"}
    server = make_cluster(ClusterOptions(wal_segment_mb=1, settings={**settings, **quick}))
    site = with_wal(make_site(place / "site", key_set, server, database="postgres"))
    with receiving(site):
        wait_until_flushed(server, write_wal(server, 2))
    kept = durable_end(site, segment_size=MIB)
    for _ in range(4):
        write_wal(server, 4)
        server.query("CHECKPOINT")
    lost = "SELECT 1 FROM pg_replication_slots WHERE wal_status = 'lost'"
    wait_until(lambda: server.query(lost), LIMIT_S, "the slot is lost")
    server.query("GRANT pg_monitor TO backup_user")
    oldest = _oldest_behind(server, kept)
    with caplog.at_level(logging.INFO, "pgkeep"), receiving(site):
        end = write_wal(server)
        wait_until_flushed(server, end)
    gaps = [record for record in caplog.records if record.getMessage() == "wal-gap"]
    assert len(gaps) == 1
    before, after = inventory(site, MIB).of(1)
    assert before.end == kept
    assert after.end >= end
    begin = _segment(1, after.start)
    assert oldest <= begin <= _oldest_behind(server, kept), "only what the server has removed"
    assert vars(gaps[0])["fields"]["to_lsn"] == str(after.start)
    with receiving(site):  # another process: it does not stumble over the gap
        end = write_wal(server)
        wait_until_flushed(server, end)
    assert inventory(site, MIB).of(1)[-1].end >= end


def _oldest_behind(server: PostgresServer, lsn: Lsn) -> str:
    """At any time a checkpoint may remove more."""
    return min(path.name for path in pg_wal(server).glob("0*") if path.name > _segment(1, lsn))


def test_a_server_without_a_limit_for_slots_is_warned_of(
    make_cluster: MakeCluster, key_set: KeySet, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_cluster(ClusterOptions(wal_segment_mb=1))
    site = with_wal(make_site(place / "site", key_set, server, database="postgres"))
    with caplog.at_level(logging.INFO, "pgkeep"), receiving(site):
        wait_until_flushed(server, write_wal(server))
    assert "wal-slot-unlimited" in [record.getMessage() for record in caplog.records]


def test_progress_is_reported_at_once_with_the_slot(
    small: Site, server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    site = small.changed(wal={"report_seconds": 1})
    with caplog.at_level(logging.INFO, "pgkeep"), receiving(site):
        end = write_wal(server, 2)
        wait_until_flushed(server, end)

        def reports() -> list[dict[str, object]]:
            found = [one for one in caplog.records if one.getMessage() == "wal-progress"]
            return [vars(one)["fields"] for one in found]

        wait_until(
            lambda: [one for one in reports() if one["archived_lsn"] == one["server_lsn"]],
            LIMIT_S,
            "the archive has all that the server had",
        )
    first, last = reports()[0], reports()[-1]
    assert first["slot"] == last["slot"] | {"retained_bytes": first["slot"]["retained_bytes"]}  # type: ignore[index,operator]
    assert last["slot"] == {
        "name": "pgkeep",
        "active": True,
        "wal_status": "reserved",
        "retained_bytes": 0,
        "keep_bytes": 3 << 30,
    }
    assert last["unarchived_bytes"] == 0
    assert last["archived_commit"] is not None


def test_another_system_under_the_same_name_is_refused(
    small: Site, server: PostgresServer, make_cluster: MakeCluster
) -> None:
    with receiving(small):
        wait_until_flushed(server, write_wal(server))
    stranger = make_cluster()
    other = small.changed(cluster={"dsn": stranger.dsn("postgres", BACKUP_USER)})
    with pytest.raises(WrongSystem), receiving(other) as receiver:
        receiver.done.result(LIMIT_S)
    assert stranger.query("SELECT slot_name FROM pg_replication_slots") == []


def test_a_second_receiver_waits_and_takes_over(small: Site, server: PostgresServer) -> None:
    with receiving(small) as first:
        wait_until_flushed(server, write_wal(server))
        with receiving(small) as second:
            services = small.services()
            lock = layout.lock(cluster_name(CLUSTER), "wal-receive").path
            with pytest.raises(LeaseHeld):
                services.leases.acquire(lock, "test", 15)
            first.stop()
            end = write_wal(server, 2)
            wait_until_flushed(server, end)
            assert not second.done.done()
    assert_archive_is(small, pg_wal(server), end, segment_size=MIB)


def test_a_server_that_shuts_down_leaves_nothing_behind(
    small: Site, server: PostgresServer
) -> None:
    """It waits until all is flushed; a tail that would wait an hour is stored at once."""
    site = with_wal(small, flush_seconds=3600)
    with receiving(site):
        write_wal(server)
        wait_until(lambda: flushed(server), LIMIT_S, "it streams")
        began = monotonic()
        server.stop()
        assert monotonic() - began < 10
        end = durable_end(site, segment_size=MIB)
        server.start()
        (checkpoint,) = server.query("SELECT redo_lsn::text FROM pg_control_checkpoint()")
        assert Lsn.parse(checkpoint[0]) <= end
    assert_archive_is(site, pg_wal(server), end, segment_size=MIB)
