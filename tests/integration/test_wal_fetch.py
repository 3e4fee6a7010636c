"""Giving WAL back: found, proven absent or an error; a recovery that storage leaves half-way."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from local.azurite import EmulatedAccount
from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer, PostgresServerFailed, StopMode
from local.unprivileged import server_account
from shared.azure_storage.patience import RetryBudget
from shared.domain.cluster import cluster_name
from shared.domain.timeline import TimelineHistory
from shared.domain.wal_segment import WalFileName, WalObject
from shared.errors import ClusterUnknown, StorageDenied, StorageUnavailable
from shared.repository import layout
from shared.repository.azure_blob_store import open_blob_store
from shared.repository.blob_store import BlobInfo, BlobName
from tests.harness import corrupt
from tests.harness.deadline import wait_until
from tests.harness.http_fault_proxy import GET_BLOB, HttpFaultProxy, azure_error
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.wal_agents import LIMIT_S, running_agent, with_agent
from tests.harness.wal_lab import HISTORY, LABEL, WalLab, lab_at, put_piece, segment
from tests.harness.wal_pages import MIB
from tests.harness.worker_services import CLUSTER, WatchedStore, make_site
from worker.commands import wal_fetch
from worker.commands.services import Services
from worker.commands.wal_client_copy import archive_command
from worker.commands.wal_server import FetchServer, restore_command, serve_fetches
from worker.commands.wal_spool import SpoolRefused
from worker.keys.generate import KeySet
from worker.postgres.recovery_settings import setting_lines

pytestmark = pytest.mark.integration

BRIEF = RetryBudget(total_s=1, first_pause_s=0.01, longest_pause_s=0.2)
ACCOUNTS = frozenset({account.uid} if (account := server_account()) else ())
FOUND, ABSENT, ERROR = 0, 1, 200
_SEGMENTS = 30


@dataclass
class Postgres:
    """Runs restore_command as PostgreSQL does: by a shell, in its data directory."""

    lab: WalLab
    folder: Path
    server: FetchServer

    def fetch(self, name: WalObject | str, cluster: str | None = None) -> tuple[int, bytes | None]:
        target = self.folder / "RECOVERYXLOG"
        target.unlink(missing_ok=True)
        command = restore_command(self.folder / "run" / "wal.sock", cluster)
        for mark, value in (("%f", str(name)), ("%p", target.name), ("%%", "%")):
            command = command.replace(mark, value)
        done = subprocess.run(["/bin/sh", "-c", command], check=False, cwd=self.folder, timeout=60)
        return done.returncode, target.read_bytes() if target.exists() else None


@pytest.fixture
def lab(place: Path, key_set: KeySet, source_cluster: PostgresServer) -> WalLab:
    return lab_at(place, key_set, source_cluster, None)


Serve = Callable[..., Postgres]


@pytest.fixture
def serve(lab: WalLab, place: Path) -> Iterator[Serve]:
    """`serve(promised=…, store=…)`: from now on somebody answers."""
    with ExitStack() as at_the_end:

        def begin(
            promised: Sequence[str] = (), timeline: int | None = None, **changes: object
        ) -> Postgres:
            at_the_end.close()
            services = replace(lab.services, **changes)  # type: ignore[arg-type]
            server = at_the_end.enter_context(serving(services, place, promised, timeline))
            return Postgres(lab, place, server)

        yield begin


@contextmanager
def serving(
    services: Services, place: Path, promised: Sequence[str] = (), timeline: int | None = None
) -> Iterator[FetchServer]:
    with serve_fetches(
        services,
        cluster_name(CLUSTER),
        socket=place / "run" / "wal.sock",
        spool=place / "spool",
        accounts=ACCOUNTS,
        promised=promised,
        timeline=timeline,
    ) as server:
        yield server


def test_r23_what_is_there_is_found_and_what_lies_behind_the_end_is_absent(
    lab: WalLab, serve: Serve, place: Path
) -> None:
    for number in range(1, 6):
        lab.put(*segment(number))
    lab.put(HISTORY, b"1\t0/300028\treason\n")
    postgres = serve()
    for number in range(1, 6):
        name, content = segment(number)
        assert postgres.fetch(name) == (FOUND, content)
    assert postgres.fetch(segment(6)[0]) == (ABSENT, None)
    assert postgres.fetch(HISTORY) == (FOUND, b"1\t0/300028\treason\n")
    for missing in ("00000003.history", f"{segment(1)[0]}.partial", segment(1, timeline=2)[0]):
        assert postgres.fetch(missing) == (ABSENT, None)
    for nonsense in ("pg_hba.conf", "%f"):
        assert postgres.fetch(nonsense) == (ERROR, None)
    told = postgres.server.statistics()
    assert (told.segments, told.bytes) == (5, 5 * MIB)
    assert told.hits + told.misses == 5
    assert told.hits >= 3
    assert told.waited_s > 0


def test_r21_what_an_agent_of_another_cluster_lacks_is_not_absent(
    lab: WalLab, serve: Serve
) -> None:
    """One agent on a host, and a restored copy of another cluster that starts beside it."""
    lab.put(*segment(1))
    postgres = serve()
    for name in (segment(1)[0], segment(2)[0]):
        assert postgres.fetch(name, "other") == (ERROR, None)
    assert postgres.fetch(segment(1)[0], CLUSTER) == (FOUND, segment(1)[1])
    assert postgres.fetch(segment(2)[0], CLUSTER) == (ABSENT, None)


def test_r21_a_hole_is_no_end(lab: WalLab, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal_fetch, "HOLE_PATIENCE_S", 0.1)
    far = WalFileName.parse("000000010000000700000001")
    for number in (1, 3):
        lab.put(*segment(number))
    postgres = serve()
    assert postgres.fetch(segment(2)[0]) == (ERROR, None)
    assert postgres.fetch(segment(4)[0]) == (ABSENT, None)
    lab.put(far, segment(1)[1])
    assert serve().fetch(segment(4)[0]) == (ERROR, None)


def test_r21_a_hole_that_fills_while_postgresql_waits_was_none(lab: WalLab, serve: Serve) -> None:
    lab.put(*segment(3))
    (name, content), looked = segment(2), []

    class Late(WatchedStore):
        def list(
            self, container: str, prefix: str = "", *, start: str = "", page: int | None = None
        ) -> Iterator[BlobInfo]:
            if start.endswith(f"{name}/"):
                looked.append(start)
                lab.put(name, content)
            return super().list(container, prefix, start=start, page=page)

    assert serve(store=Late(lab.services.store)).fetch(name) == (FOUND, content)
    assert looked


def test_r21_a_promised_file_is_never_absent(lab: WalLab, serve: Serve) -> None:
    lab.put(*segment(1))
    names = [str(segment(number)[0]) for number in (1, 2)]
    postgres = serve([*names, str(HISTORY)])
    assert postgres.fetch(names[0])[0] == FOUND
    assert postgres.fetch(names[1]) == (ERROR, None)
    assert postgres.fetch(HISTORY) == (ERROR, None)
    assert postgres.fetch("00000003.history") == (ABSENT, None)


def test_of_a_timeline_that_the_plan_does_not_lead_to_junk_only_says_that_it_is_there(
    lab: WalLab, serve: Serve
) -> None:
    for item in (HISTORY, LABEL):
        lab.put(item, b"1\t0/300028\treason\n")
        lab.replaced(item, lambda raw: corrupt.flip_bit(raw, -1))
    status, content = serve([], 1).fetch(HISTORY)
    assert (status, content and TimelineHistory.parse(2, content)) == (FOUND, TimelineHistory(2))
    assert serve([], 1).fetch(LABEL) == (ERROR, None)
    for unknown_or_its_own in (None, 2):
        assert serve([], unknown_or_its_own).fetch(HISTORY) == (ERROR, None)


def test_the_tail_is_filled_with_zeros_and_never_kept_unless_wal_follows(
    lab: WalLab, serve: Serve, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal_fetch, "HOLE_PATIENCE_S", 0.1)
    name, content = segment(2)
    lab.put(*segment(1))
    put_piece(lab, name, content, 0, 16384)
    postgres = serve()
    assert postgres.fetch(segment(1)[0])[0] == FOUND
    padded = content[:16384].ljust(MIB, b"\0")
    assert postgres.fetch(name) == (FOUND, padded)
    put_piece(lab, name, content, 16384, 24576)
    assert postgres.fetch(name) == (FOUND, content[:24576].ljust(MIB, b"\0"))
    assert not list(place.glob(f"spool/*/{name}"))
    lab.put(*segment(3))
    assert serve().fetch(name) == (ERROR, None)
    # A plan may end in it, with a gap behind.
    assert serve([str(segment(1)[0]), str(name)]).fetch(name)[0] == FOUND


def test_r22_a_damaged_segment_or_one_without_its_key_is_an_error(
    lab: WalLab, serve: Serve
) -> None:
    for number in (1, 2, 3):
        lab.put(*segment(number))
    name = segment(2)[0]
    lab.replaced(name, lambda raw: corrupt.flip_bit(raw, -77))
    postgres = serve()
    assert [postgres.fetch(segment(number)[0])[0] for number in (1, 2, 3)] == [FOUND, ERROR, FOUND]
    kid = lab.metadata(segment(3)[0]).kid
    lab.services.store.delete(layout.key_record(cluster_name(CLUSTER), kid))
    assert [serve().fetch(segment(number)[0])[0] for number in (1, 2, 3)] == [FOUND, ERROR, ERROR]


@dataclass
class Broken(WatchedStore):
    """Fails to answer whatever concerns WAL, once it is told to."""

    error: Exception | None = None

    def head(self, name: BlobName) -> BlobInfo:
        self._fail(name.container)
        return super().head(name)

    def read(self, name: BlobName, *, limit: int) -> bytes:
        self._fail(name.container)
        return super().read(name, limit=limit)

    def list(
        self, container: str, prefix: str = "", *, start: str = "", page: int | None = None
    ) -> Iterator[BlobInfo]:
        self._fail(container)
        return super().list(container, prefix, start=start, page=page)

    def _fail(self, container: str) -> None:
        if self.error and container == layout.WAL:
            raise self.error


def test_r21_storage_that_does_not_answer_is_never_absent(lab: WalLab, serve: Serve) -> None:
    lab.put(*segment(1))
    store = Broken(lab.services.store)
    postgres = serve(store=store)
    assert postgres.fetch(segment(1)[0])[0] == FOUND
    for error in (StorageUnavailable("away"), StorageDenied("not for you")):
        store.error = error
        for name in (segment(1)[0], segment(2)[0], HISTORY):
            assert postgres.fetch(name) == (ERROR, None)
    store.error = None
    assert postgres.fetch(segment(2)[0]) == (ABSENT, None)


def test_once_the_server_is_gone_or_before_it_is_there_every_fetch_is_an_error(
    lab: WalLab, place: Path
) -> None:
    with serving(lab.services, place) as server:
        postgres = Postgres(lab, place, server)
    assert postgres.fetch(HISTORY) == (ERROR, None)
    (place / "run" / "python3").unlink()
    assert postgres.fetch(HISTORY) == (ERROR, None)
    (place / "run" / "python3").symlink_to("/bin/false")  # as an interpreter that does not start
    assert postgres.fetch(HISTORY) == (ERROR, None)


def test_a_cluster_that_nobody_registered_and_a_bad_spool_are_refused_before_a_recovery(
    lab: WalLab, place: Path
) -> None:
    nobody = serve_fetches(
        lab.services,
        cluster_name("nobody"),
        socket=place / "run" / "wal.sock",
        spool=place / "spool",
        accounts=ACCOUNTS,
    )
    with pytest.raises(ClusterUnknown, match="nobody"), nobody:
        pass
    (place / "PG_VERSION").write_text("17")
    with pytest.raises(SpoolRefused), serving(lab.services, place):
        pass


@dataclass
class Copy:
    """A base backup without WAL, set up to recover through a socket."""

    server: PostgresServer

    @classmethod
    def of(cls, source: PostgresServer, backup: Path, socket: Path, folder: Path) -> "Copy":
        shutil.copytree(backup, folder / "data")
        settings = {"restore_command": restore_command(socket), "archive_mode": "off"}
        with (folder / "data" / "postgresql.auto.conf").open("a") as file:
            file.write("\n".join(setting_lines(settings)) + "\n")
        (folder / "data" / "recovery.signal").touch()
        return cls(PostgresServer(source.programs, folder, source.passwords))

    def recovers(self) -> bool:
        """Start; whether it is open in the end."""
        with suppress(PostgresServerFailed):
            self.server.start()
        wait_until(lambda: not self.server.running or self.promoted(), LIMIT_S, "it has ended")
        return self.server.running

    def promoted(self) -> bool:
        return (self.server.data / "pg_wal" / "00000002.history").exists()


@dataclass(frozen=True)
class Archived:
    """A server whose WAL since a base backup lies in Azurite, and two copies of that backup."""

    source: PostgresServer
    services: Services
    copies: tuple[Copy, Copy]

    def rows(self, server: PostgresServer) -> list[tuple[object, ...]]:
        return server.query("SELECT count(*), sum(n) FROM written")


@pytest.fixture
def archived(
    place: Path, key_set: KeySet, make_cluster: MakeCluster, azurite_account: EmulatedAccount
) -> Iterator[Archived]:
    settings = {"archive_mode": "on", "archive_command": "false", "wal_keep_size": "1GB"}
    source = make_cluster(ClusterOptions(wal_segment_mb=1, settings=settings))
    site = make_site(place / "site", key_set, source, storage=azurite_account, database="postgres")
    site = with_agent(site)
    services = site.services()
    with running_agent(services, site.cluster) as socket, closing(source.connect()) as sql:
        source.configure({"archive_command": archive_command(socket)})
        source.reload()
        base_backup(source, place / "backup")
        sql.execute("CREATE TABLE written AS SELECT 1 AS n")
        for _ in range(_SEGMENTS):
            sql.execute("INSERT INTO written SELECT generate_series(1, 5000)")
            sql.execute("SELECT pg_switch_wal()")
        status = source.data / "pg_wal" / "archive_status"
        wait_until(lambda: not list(status.glob("*.ready")), LIMIT_S, "all is archived")
    listened_at = place / "run" / "wal.sock"
    folders = place / "copy1", place / "copy2"
    first, second = (Copy.of(source, place / "backup", listened_at, folder) for folder in folders)
    yield Archived(source, services, (first, second))
    for copy in (first, second):
        copy.server.stop(StopMode.IMMEDIATE)


def base_backup(source: PostgresServer, data: Path) -> None:
    subprocess.run(
        [
            *(source.programs / "pg_basebackup", "-d", source.dsn(), "-D", data),
            *("-X", "none", "-c", "fast", "--no-sync", "--no-manifest"),
        ],
        check=True,
        capture_output=True,
        env={"LC_ALL": "C"},
    )
    for file in (data / "pg_wal").iterdir():
        assert file.is_dir(), "no WAL came with it"


@pytest.mark.slow
def test_r21_a_recovery_stops_where_storage_fails_and_goes_on_when_it_is_back(
    archived: Archived, azurite_account: EmulatedAccount, place: Path
) -> None:
    undisturbed, disturbed = archived.copies
    _recover_undisturbed(archived, undisturbed, place)
    proxy = HttpFaultProxy(azurite_account.blob_url)
    store = open_blob_store(proxy.url, azurite_account.credential, retry=BRIEF)
    away = azure_error(GET_BLOB, 503, "ServerBusy", times=100_000)
    wal = archived.services.settings.wal.model_copy(update={"prefetch_bytes": 4 * MIB})
    settings = archived.services.settings.model_copy(update={"wal": wal})
    with serving(replace(archived.services, store=store, settings=settings), place) as server:
        proxy.script(replace(away, skip=14))
        for failure in (1, 2):  # the second time from what it had replayed
            assert not disturbed.recovers()
            assert disturbed.server.log().count("FATAL:  could not restore file") == failure
            assert not disturbed.promoted()
        assert 1 < server.statistics().segments < _SEGMENTS
        proxy.forget()
        assert disturbed.recovers()
    assert archived.rows(disturbed.server) == archived.rows(archived.source)
    store.close()
    proxy.close()


def _recover_undisturbed(archived: Archived, copy: Copy, place: Path) -> None:
    """Each segment is read once, and before PostgreSQL asks for it."""
    watched = Reads(archived.services.store)
    with serving(replace(archived.services, store=watched), place) as server:
        assert copy.recovers()
        told = server.statistics()
    assert archived.rows(copy.server) == archived.rows(archived.source)
    assert told.segments >= _SEGMENTS
    assert told.hits > told.misses
    segments = [name for name in watched.read_names if len(name) == 24]
    assert len(segments) <= told.segments + archived.services.settings.wal.parallel


@dataclass
class Reads(WatchedStore):
    """Remembers what WAL was read."""

    def __post_init__(self) -> None:
        self.read_names: list[str] = []

    def read(self, name: BlobName, *, limit: int) -> bytes:
        if name.container == layout.WAL:
            self.read_names.append(name.path.rpartition("/")[2])
        return super().read(name, limit=limit)
