"""PostgreSQL archives through the agent: what is stored, what is refused, what it is told."""

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from local.azurite import EmulatedAccount
from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer, StopMode
from local.unprivileged import make_reachable_directory, server_account
from shared import adapters
from shared.azure_storage.patience import RetryBudget
from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName
from shared.repository import layout
from shared.repository.azure_blob_store import open_blob_store
from shared.repository.backups import read_cluster
from shared.repository.blob_store import BlobName
from tests.harness.deadline import wait_until
from tests.harness.http_fault_proxy import HttpFaultProxy
from tests.harness.postgres_clusters import DEFAULT_MAJOR, programs_of
from tests.harness.wal_agents import LIMIT_S, client, running_agent, with_agent
from tests.harness.wal_lab import WalLab, segment
from tests.harness.wal_pages import MIB, SYSTEM, WalWriter
from tests.harness.worker_services import CLUSTER, Site, WatchedStore, make_site
from worker.commands.cluster_identity import register
from worker.commands.services import Services
from worker.commands.wal_client_copy import archive_command
from worker.commands.wal_reader import WalReader
from worker.keys.generate import KeySet

pytestmark = pytest.mark.integration

BRIEF = RetryBudget(total_s=1, first_pause_s=0.01, longest_pause_s=0.2)
_ARCHIVING = {
    "archive_mode": "on",
    "archive_command": "false",
    "wal_keep_size": "1GB",
    "shared_buffers": "16MB",
    "autovacuum": "off",
}


@pytest.fixture(scope="module")
def archiving() -> Iterator[PostgresServer]:
    """A server with segments of 1 MiB, which fails to archive until a test gives it an agent."""
    with ExitStack() as at_the_end:
        folder = Path(at_the_end.enter_context(tempfile.TemporaryDirectory(prefix="pgkeep-test-")))
        make_reachable_directory(folder, server_account())
        options = ClusterOptions(fsync=False, wal_segment_mb=1, settings=_ARCHIVING)
        server = PostgresServer.create(programs_of(DEFAULT_MAJOR), folder / "server", options)
        at_the_end.callback(server.stop, StopMode.IMMEDIATE)
        server.start()
        server.query("CREATE TABLE written (at timestamptz DEFAULT now(), text text)")
        yield server


@pytest.fixture
def site(place: Path, key_set: KeySet, archiving: PostgresServer) -> Site:
    return made_site(place, key_set, archiving, None)


def made_site(
    place: Path, keys: KeySet, server: PostgresServer, account: EmulatedAccount | None
) -> Site:
    site = with_agent(make_site(place / "site", keys, server, storage=account, database="postgres"))
    adapters.create_containers(site.settings.repository)
    return site


def write_segments(server: PostgresServer, count: int) -> list[str]:
    """That many more to archive; their names."""
    with server.connect() as sql:
        names = []
        for _ in range(count):
            sql.execute(
                "INSERT INTO written (text) SELECT repeat('x', 1000) FROM generate_series(1, 50)"
            )
            row = sql.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
            names.append(str(row[0] if row else ""))
    return names


def archive_to(server: PostgresServer, socket: Path | None) -> None:
    server.configure({"archive_command": archive_command(socket) if socket else "false"})
    server.reload()


def waiting(server: PostgresServer) -> list[str]:
    return sorted(path.stem for path in (server.data / "pg_wal/archive_status").glob("*.ready"))


def wait_until_archived(server: PostgresServer) -> None:
    wait_until(lambda: not waiting(server), LIMIT_S, "all is archived")


def failures(server: PostgresServer) -> int:
    ((count,),) = server.query("SELECT failed_count FROM pg_stat_archiver")
    return int(count)


def reader_of(services: Services) -> WalReader:
    document = read_cluster(services.store, ClusterName(CLUSTER), services.pinned)
    assert document is not None
    return WalReader(services, document)


@dataclass
class Crowd:
    """Lets the first puts of WAL wait for one another, and counts how many are under way."""

    at_once: int = 0
    most: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def enter(self, name: BlobName) -> None:
        if name.container != layout.WAL:
            return
        with self.changed:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.most >= 3, 5)

    def leave(self, name: BlobName) -> None:
        with self.changed:
            self.at_once -= name.container == layout.WAL


@pytest.mark.parametrize("where", ["directory", "azurite"])
def test_a_backlog_is_archived_in_parallel_and_byte_for_byte(
    place: Path,
    key_set: KeySet,
    archiving: PostgresServer,
    request: pytest.FixtureRequest,
    where: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    account = request.getfixturevalue("azurite_account") if where == "azurite" else None
    site = made_site(place, key_set, archiving, account)
    archive_to(archiving, None)
    names = write_segments(archiving, 12)
    with archiving.connect() as sql:
        sql.execute("SELECT pg_backup_start('label', true)")
        sql.execute("SELECT pg_backup_stop(false)")
    names += write_segments(archiving, 1)
    backlog = waiting(archiving)
    assert set(names) < set(backlog)
    assert any(name.endswith(".backup") for name in backlog)
    crowd = Crowd()
    services = site.services()
    store = WatchedStore(services.store, before=crowd.enter, after=crowd.leave)
    caplog.set_level("INFO", "pgkeep")
    with running_agent(site.services(store=store), site.cluster) as socket:
        archive_to(archiving, socket)
        wait_until_archived(archiving)
        last = archiving.query("SELECT last_archived_wal FROM pg_stat_archiver")
        assert last == [(names[-1],)]
        end = segment_end(names[-1])
        wait_until(lambda: end in reported(caplog, "archived_lsn"), LIMIT_S, "progress is reported")
        archive_to(archiving, None)
    assert crowd.most >= 3
    reader = reader_of(services)
    for name in backlog:
        file = archiving.data / "pg_wal" / name
        assert reader.read(WalFileName.parse(name)) == file.read_bytes(), name
    stored = [info for info in services.store.list(layout.WAL) if info.name.path.endswith(names[5])]
    assert [info.size < 20 * 1024 for info in stored] == [True]  # W20: mostly zeros


def segment_end(name: str) -> str:
    number = int(name[8:16], 16) * (1 << 32) // MIB + int(name[16:], 16)
    return str(Lsn((number + 1) * MIB))


def reported(caplog: pytest.LogCaptureFixture, field: str) -> list[object]:
    records = [record for record in caplog.records if record.message == "wal-progress"]
    return [record.__dict__["fields"][field] for record in records]


def test_w02_another_content_is_refused_with_both_hashes_and_postgresql_keeps_its_segment(
    site: Site, archiving: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    archive_to(archiving, None)
    (name,) = write_segments(archiving, 1)
    file = archiving.data / "pg_wal" / name
    services = site.services()
    ((system,),) = archiving.query("SELECT system_identifier FROM pg_control_system()")
    lab = WalLab(services, register(services, ClusterName(CLUSTER), str(system)))
    other = bytearray(file.read_bytes())
    other[5000] ^= 1
    lab.put(WalFileName.parse(name), bytes(other))
    caplog.set_level("INFO", "pgkeep")
    with running_agent(services, site.cluster) as socket:
        said = client(socket, "push", file, name)
        assert said.status == 7
        assert len(set(re.findall(r"\b[0-9a-f]{64}\b", said.line))) == 2
        before = failures(archiving)
        archive_to(archiving, socket)
        wait_until(lambda: failures(archiving) > before, LIMIT_S, "PostgreSQL counts the failure")
        archive_to(archiving, None)
    assert name in waiting(archiving)
    conflicts = [record for record in caplog.records if record.message == "wal-conflict"]
    assert conflicts
    assert lab.reader().read(WalFileName.parse(name)) == bytes(other)
    assert "archiver process" not in archiving.log()  # as it logs when it was ended by a status


def test_w12_w18_while_storage_is_away_nothing_is_dropped_and_failures_count(
    place: Path, key_set: KeySet, archiving: PostgresServer, azurite_account: EmulatedAccount
) -> None:
    site = made_site(place, key_set, archiving, azurite_account)
    proxy = HttpFaultProxy(azurite_account.blob_url)
    store = open_blob_store(proxy.url, azurite_account.credential, retry=BRIEF)
    names = write_segments(archiving, 4)
    before = failures(archiving)
    with running_agent(site.services(store=store), site.cluster) as socket:
        with proxy.outage():
            said = client(socket, "push", archiving.data / "pg_wal" / names[0], names[0])
            assert (said.status, "storage-unavailable" in said.line) == (75, True)
            archive_to(archiving, socket)
            wait_until(lambda: failures(archiving) > before, LIMIT_S, "failures count")
            assert set(names) <= set(waiting(archiving))
        archive_to(archiving, socket)  # else it pauses for a minute after three failures
        wait_until_archived(archiving)
        archive_to(archiving, None)
    reader = reader_of(site.services())
    for name in names:
        assert (
            reader.read(WalFileName.parse(name)) == (archiving.data / "pg_wal" / name).read_bytes()
        )
    store.close()
    proxy.close()


@dataclass
class Direct:
    """An agent for a system that exists on paper only, to push hand-made files to."""

    lab: WalLab
    socket: Path
    folder: Path

    def push(self, content: bytes, name: str) -> tuple[int, str]:
        file = self.folder / "file"
        file.write_bytes(content)
        said = client(self.socket, "push", "file", name, folder=self.folder)
        return said.status, said.line


@pytest.fixture
def direct(site: Site, place: Path) -> Iterator[Direct]:
    services = site.services()
    lab = WalLab(services, register(services, ClusterName(CLUSTER), str(SYSTEM)))
    with running_agent(services, site.cluster) as socket:
        yield Direct(lab, socket, place)


def test_w05_w17_what_is_no_segment_of_this_system_and_place_is_never_stored(
    direct: Direct,
) -> None:
    name, content = segment(3)
    other_system = WalWriter(Lsn(3 * MIB), system=SYSTEM + 1, segment_size=MIB)
    other_system.fill(100)
    later_timeline = segment(3, timeline=2)[1]
    wrong = {
        "cut": content[:-8192],
        "empty": b"",
        "zeros": bytes(MIB),
        "magic": b"\x00\x00" + content[2:],
        "system": other_system.segment(),
        "place": segment(4)[1],
        "timeline": later_timeline,
    }
    for what, bad in wrong.items():
        status, line = direct.push(bad, str(name))
        assert (what, status) == (what, 3)
        assert "wal-segment-invalid" in line
    for bad_name in ("postgresql.conf", "../" + str(name), str(name).lower() + "x", "0" * 24):
        status, line = direct.push(content, bad_name)
        assert (status, "wal-file-name-invalid" in line) == (2, True)
    assert direct.push(content, f"{name}.partial")[0] == 0
    assert direct.push(segment(4)[1], f"{name}.partial")[0] == 3
    assert direct.push(bytes(MIB + 1), f"{name}.00000028.backup")[0] == 3
    assert sorted(direct.lab.stored()) == [f"{CLUSTER}/00000001/{name}.partial"]


def test_w01_w07_w10_history_labels_and_segments_are_taken_twice_and_changed_ones_refused(
    direct: Direct,
) -> None:
    name, content = segment(3)
    history = b"1\t0/300028\tno recovery target specified\n"
    for file, good in (
        (str(name), content),
        ("00000002.history", history),
        (f"{name}.00000028.backup", b"START WAL LOCATION: 0/300028\n"),
    ):
        assert direct.push(good, file) == (0, "")
        assert direct.push(good, file) == (0, "")
    before = direct.lab.stored()
    assert direct.push(history.replace(b"28", b"30"), "00000002.history")[0] == 7
    assert direct.push(b"nonsense", "00000003.history")[0] == 5
    assert direct.lab.stored() == before


def test_w15_a_large_segment_is_stored_in_pieces_and_read_as_one(direct: Direct) -> None:
    size = 128 * MIB
    writer = WalWriter(Lsn(size), segment_size=size)
    writer.fill(100)
    name = WalFileName.parse("000000010000000000000001")
    content = writer.segment()[:-MIB] + os.urandom(MIB)
    assert direct.push(content, str(name)) == (0, "")
    assert direct.push(content, str(name)) == (0, "")
    pieces = [path.rpartition("/")[2] for path in direct.lab.stored()]
    assert pieces == [
        f"{name}.00000000-04000000.partial",
        f"{name}.04000000-08000000.partial",
    ]
    read = direct.lab.reader().read_segment(name)
    assert (read.complete, read.content == content) == (True, True)
    # A promotion must not stop the archiver for good.
    assert direct.push(content, f"{name}.partial") == (0, "")
    assert direct.lab.reader().read(WalFileName.parse(f"{name}.partial")) == content


def test_the_first_push_registers_the_cluster(site: Site, archiving: PostgresServer) -> None:
    (name,) = write_segments(archiving, 1)
    file = archiving.data / "pg_wal" / name
    with running_agent(site.services(), site.cluster) as socket:
        assert client(socket, "push", file, name).status == 0
    services = site.services()
    known = read_cluster(services.store, ClusterName(CLUSTER), services.pinned)
    ((system,),) = archiving.query("SELECT system_identifier FROM pg_control_system()")
    assert known is not None
    assert known.system_identifier == str(system)


def test_without_a_server_an_unregistered_cluster_cannot_be_pushed_to(
    site: Site, archiving: PostgresServer
) -> None:
    (name,) = write_segments(archiving, 1)
    broken = site.changed(cluster={"dsn": "host=127.0.0.1 port=1 user=nobody"})
    with running_agent(broken.services(), broken.cluster) as socket:
        said = client(socket, "push", archiving.data / "pg_wal" / name, name)
    assert (said.status, "postgres-unreachable" in said.line) == (75, True)
    assert os.listdir(site.repository / "wal") == []  # noqa: PTH208 - nothing, hidden or not
