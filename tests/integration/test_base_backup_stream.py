"""Base backups streamed from real servers, one of each major version that is installed."""

import io
import os
import random
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pytest
from psycopg import pq
from psycopg.pq.abc import PGconn

from local import postgres_programs
from local.postgres_initdb import BACKUP_USER, ClusterOptions
from local.postgres_server import PostgresServer
from shared.domain.lsn import LSN_MAX, Lsn
from shared.domain.wal_segment import segment_name, segments_between
from shared.errors import (
    PostgresAuthenticationFailed,
    PostgresCommandFailed,
    PostgresConnectionsExhausted,
    PostgresDenied,
    PostgresGone,
    PostgresSilent,
    ReplicationDenied,
)
from worker.postgres.backup_manifest import (
    BackupManifest,
    ChecksumAlgorithm,
    file_checksum,
    parse,
)
from worker.postgres.base_backup import (
    Archive,
    BaseBackupOptions,
    ChecksumFailures,
    Data,
    Event,
    ManifestData,
    Start,
    Stop,
    Tablespaces,
    stream_base_backup,
    upload_manifest,
)
from worker.postgres.connection import connect, connect_sql
from worker.postgres.replication import identify_system, show, wal_segment_size

pytestmark = [pytest.mark.integration, pytest.mark.postgres]

PAGE = 8192
OPTIONS = BaseBackupOptions(label="it's a test")
HOSTILE_ENVIRONMENT = {
    "PGHOST": "elsewhere.invalid",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": "1",
    "PGUSER": "somebody",
    "PGPASSWORD": "wrong",
    "PGDATABASE": "elsewhere",
    "PGOPTIONS": "-c search_path=evil",
    "PGPASSFILE": "/nonexistent",
    "PGSSLMODE": "verify-full",
    "PGSSLROOTCERT": "/nonexistent",
    "PGREQUIREAUTH": "md5",
    "PGCHANNELBINDING": "require",
    "PGTARGETSESSIONATTRS": "standby",
    "PGCONNECT_TIMEOUT": "soon",
    "PGCLIENTENCODING": "LATIN9",
    "PGMINPROTOCOLVERSION": "3.2",
}


E = TypeVar("E", bound=Event)


@dataclass
class Streamed:
    """What came of one BASE_BACKUP."""

    archives: dict[str, bytearray] = field(default_factory=dict)
    manifest_bytes: bytearray = field(default_factory=bytearray)
    others: list[Event] = field(default_factory=list)

    @classmethod
    def take(cls, connection: PGconn, options: BaseBackupOptions = OPTIONS) -> "Streamed":
        streamed = cls()
        archive = bytearray()
        for event in stream_base_backup(connection, options):
            match event:
                case Archive(name):
                    archive = streamed.archives.setdefault(name, bytearray())
                case Data(chunk):
                    archive += chunk
                case ManifestData(chunk):
                    streamed.manifest_bytes += chunk
                case _:
                    streamed.others.append(event)
        return streamed

    @property
    def manifest(self) -> BackupManifest:
        return parse(bytes(self.manifest_bytes))

    def the(self, kind: type[E]) -> E:
        return next(event for event in self.others if isinstance(event, kind))

    def files(self) -> dict[bytes, bytes]:
        """Content of all regular files by their path in the manifest."""
        files = {}
        for name, archive in self.archives.items():
            prefix = b"" if name == "base.tar" else f"pg_tblspc/{name[:-4]}/".encode()
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                for member in tar:
                    if member.isreg() and (content := tar.extractfile(member)):
                        files[prefix + os.fsencode(member.name)] = content.read()
        return files


@pytest.fixture(scope="module", params=postgres_programs.available_majors())
def cluster(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of our own: these tests damage its files."""
    programs = postgres_programs.find(request.param)
    assert programs is not None
    settings = {"autovacuum": "off", "max_wal_senders": "3", "max_replication_slots": "0"}
    options = ClusterOptions(fsync=False, settings=settings)
    # not tmp_path: its parents are closed to PostgreSQL's account
    with (
        TemporaryDirectory(prefix="pgkeep-test-") as directory,
        PostgresServer.create(programs, Path(directory), options) as server,
    ):
        yield server


@contextmanager
def walsender(cluster: PostgresServer) -> Iterator[PGconn]:
    """Waits for its end at the server, too: walsenders are few."""
    connection = connect(cluster.dsn(user=BACKUP_USER), replication=True)
    pid = connection.backend_pid
    try:
        yield connection
    finally:
        connection.finish()
        wait_until_gone(cluster, pid)


def wait_until_gone(cluster: PostgresServer, pid: int) -> None:
    """Until the server has no walsender of this pid."""
    pause, deadline = threading.Event(), time.monotonic() + 20
    with cluster.connect() as session:
        while session.execute("SELECT FROM pg_stat_replication WHERE pid = %s", (pid,)).fetchone():
            assert time.monotonic() < deadline, "the walsender goes on"
            pause.wait(0.05)


def file_of(cluster: PostgresServer, table: str) -> Path:
    with cluster.connect() as session:
        found = session.execute("SELECT pg_relation_filepath(%s)", (table,)).fetchone()
    assert found
    return cluster.data / str(found[0])


@pytest.mark.parametrize("algorithm", [ChecksumAlgorithm.CRC32C, ChecksumAlgorithm.SHA256])
def test_every_file_of_the_tar_is_in_the_manifest_with_size_and_checksum(
    cluster: PostgresServer, algorithm: ChecksumAlgorithm
) -> None:
    with walsender(cluster) as connection:
        streamed = Streamed.take(connection, replace(OPTIONS, manifest_checksums=algorithm))
    listed = streamed.manifest.files
    files = {
        path: content
        for path, content in streamed.files().items()
        if path in listed or not path.startswith(b"pg_wal/")  # the manifest names WAL as ranges
    }
    assert files.keys() == listed.keys()
    for path, content in files.items():
        checksum = file_checksum(algorithm)
        checksum.update(content)
        found = (len(content), algorithm, checksum.digest())
        entry = listed[path]
        assert found == (entry.size, entry.checksum_algorithm, entry.checksum), path


def test_start_and_stop_agree_with_manifest_label_and_the_wal_it_carries(
    cluster: PostgresServer,
) -> None:
    with walsender(cluster) as connection:
        identity = identify_system(connection)
        segment_size = wal_segment_size(connection)
        streamed = Streamed.take(connection)
        assert identify_system(connection).flush_lsn >= streamed.the(Stop).lsn
    start, stop, manifest = streamed.the(Start), streamed.the(Stop), streamed.manifest
    (wal_range,) = manifest.wal_ranges
    assert (wal_range.timeline, wal_range.start, wal_range.end) == (1, start.lsn, stop.lsn)
    assert (start.timeline, stop.timeline) == (1, 1)
    known = identity.system_identifier if cluster.major >= 17 else None
    assert manifest.system_identifier == known
    files = streamed.files()
    assert f"START WAL LOCATION: {start.lsn} ".encode() in files[b"backup_label"]
    assert b"LABEL: it's a test\n" in files[b"backup_label"]
    for segment in segments_between(1, start.lsn, stop.lsn, segment_size):
        assert len(files[f"pg_wal/{segment}".encode()]) == segment_size


def test_identify_system_says_what_sql_says(cluster: PostgresServer) -> None:
    with walsender(cluster) as connection:
        identity = identify_system(connection)
        assert show(connection, "wal_level") == "replica"
        assert wal_segment_size(connection) == 16 * 1024 * 1024
    ((system_identifier,),) = cluster.query("SELECT system_identifier FROM pg_control_system()")
    assert (identity.system_identifier, identity.timeline) == (system_identifier, 1)


def test_segment_names_are_those_of_pg_walfile_name(cluster: PostgresServer) -> None:
    chance = random.Random(17)  # noqa: S311 - positions, not secrets
    # before 16, pg_walfile_name gave the previous segment at a boundary: stay clear of those
    positions = [Lsn(chance.randrange(LSN_MAX) | 1) for _ in range(500)]
    with cluster.connect() as session:
        said = session.execute(
            "SELECT lsn::pg_lsn::text, pg_walfile_name(lsn::pg_lsn) FROM unnest(%s::text[]) AS lsn",
            ([str(lsn) for lsn in positions],),
        ).fetchall()
    assert said == [(str(lsn), segment_name(1, lsn, 1 << 24)) for lsn in positions]


def test_a_wrong_password_is_told_apart(cluster: PostgresServer) -> None:
    wrong = f"{cluster.dsn(user=BACKUP_USER)} password=hunter2"
    with pytest.raises(PostgresAuthenticationFailed, match=f"user={BACKUP_USER}") as refusal:
        connect(wrong, replication=True)
    assert "hunter2" not in str(refusal.value)
    with pytest.raises(PostgresAuthenticationFailed):
        connect_sql(wrong)


def test_a_role_that_may_not_replicate_is_told_apart(cluster: PostgresServer) -> None:
    with cluster.connect() as session:
        session.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
    dsn = f"{cluster.dsn(user='reader')} password=reader"
    connect_sql(dsn).close()
    with pytest.raises(ReplicationDenied):
        connect(dsn, replication=True)


def test_a_role_that_may_not_log_in_is_told_apart(cluster: PostgresServer) -> None:
    with cluster.connect() as session:
        session.execute("CREATE ROLE nobody REPLICATION NOLOGIN PASSWORD 'nobody'")
    with pytest.raises(PostgresDenied, match="not permitted to log in"):
        connect(f"{cluster.dsn(user='nobody')} password=nobody", replication=True)


def test_a_walsender_too_many_is_told_apart(cluster: PostgresServer) -> None:
    with (
        walsender(cluster),
        walsender(cluster),
        walsender(cluster),
        pytest.raises(PostgresConnectionsExhausted, match="max_wal_senders"),
    ):
        connect(cluster.dsn(user=BACKUP_USER), replication=True)


def test_a_hostile_environment_changes_nothing(
    cluster: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = cluster.dsn(user=BACKUP_USER)
    expected = identity_of(cluster)
    for name, value in HOSTILE_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    connection = connect(dsn, replication=True)
    try:
        assert identify_system(connection).system_identifier == expected
    finally:
        connection.finish()
    with connect_sql(dsn) as session:
        said = session.execute("SELECT current_user, current_setting('search_path')").fetchone()
    assert said == (BACKUP_USER, '"$user", public')


def identity_of(cluster: PostgresServer) -> int:
    with walsender(cluster) as connection:
        return identify_system(connection).system_identifier


def test_a_terminated_walsender_ends_the_stream_in_an_error(cluster: PostgresServer) -> None:
    with walsender(cluster) as connection:
        events = stream_base_backup(connection, replace(OPTIONS, max_rate=1024))
        while not isinstance(next(events), Data):
            pass
        with cluster.connect() as session:
            session.execute("SELECT pg_terminate_backend(%s)", (connection.backend_pid,))
        with pytest.raises(PostgresGone, match="SQLSTATE 57P01"):
            assert not any(isinstance(event, Stop) for event in events)
        assert connection.status == pq.ConnStatus.BAD


def test_a_server_that_stalls_without_a_word_is_given_up(cluster: PostgresServer) -> None:
    with walsender(cluster) as connection:
        options = replace(OPTIONS, max_rate=1024, silence_limit=1.5)
        events = stream_base_backup(connection, options)
        while not isinstance(next(events), Data):
            pass
        pid = connection.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(PostgresSilent, match=r"nothing for 1\.5 s"):
                assert not any(isinstance(event, Stop) for event in events)
        finally:
            os.kill(pid, signal.SIGCONT)
    wait_until_gone(cluster, pid)


def test_a_stream_closed_early_ends_the_walsender(cluster: PostgresServer) -> None:
    with walsender(cluster) as connection:
        pid = connection.backend_pid
        events = stream_base_backup(connection, replace(OPTIONS, max_rate=1024))
        while not isinstance(next(events), Data):
            pass
        events.close()
        wait_until_gone(cluster, pid)
    assert next(events, None) is None


@pytest.mark.parametrize("pages", [1, 7])
def test_broken_pages_make_the_backup_suspect(cluster: PostgresServer, pages: int) -> None:
    with cluster.connect() as session:
        session.execute(
            "CREATE TABLE broken AS SELECT n, repeat('x', 500) FROM generate_series(1, 500) n"
        )
        session.execute("VACUUM (FREEZE) broken")  # else a reader's hint bits would write pages
        session.execute("CHECKPOINT")
    try:
        with file_of(cluster, "broken").open("r+b") as file:
            for page in range(pages):
                file.seek(page * PAGE + PAGE // 2)
                file.write(b"\xde\xad\xbe\xef")
        with walsender(cluster) as connection:
            streamed = Streamed.take(connection)
            assert identify_system(connection).timeline == 1
    finally:
        cluster.query("DROP TABLE broken")
        cluster.query("CHECKPOINT")
    suspect = streamed.the(ChecksumFailures)
    assert suspect.count == pages
    assert "checksum verification failed" in suspect.messages[0]
    assert isinstance(streamed.others[-1], Stop)
    assert streamed.manifest.files


def test_a_file_name_that_is_not_utf8_comes_back_exactly(cluster: PostgresServer) -> None:
    path = Path(os.fsdecode(os.fsencode(cluster.data) + b"/not\xff\xfeutf8"))
    path.write_bytes(b"content")
    owner = cluster.data.stat()
    os.chown(path, owner.st_uid, owner.st_gid)
    try:
        with walsender(cluster) as connection:
            streamed = Streamed.take(connection)
    finally:
        path.unlink()
    assert streamed.manifest.files[b"not\xff\xfeutf8"].size == 7
    assert streamed.files()[b"not\xff\xfeutf8"] == b"content"


def test_a_tablespace_is_announced_and_comes_as_its_own_archive(cluster: PostgresServer) -> None:
    place = cluster.directory / "fast = space"
    place.mkdir(exist_ok=True)
    owner = cluster.data.stat()
    os.chown(place, owner.st_uid, owner.st_gid)
    with cluster.connect() as session:
        session.execute(f"CREATE TABLESPACE fast LOCATION '{place}'")
        session.execute("CREATE TABLE apart TABLESPACE fast AS SELECT 1 AS n")
        found = session.execute("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'").fetchone()
        assert found
    try:
        with walsender(cluster) as connection:
            streamed = Streamed.take(connection)
    finally:
        cluster.query("DROP TABLE apart")
        cluster.query("DROP TABLESPACE fast")
    outside, inside = streamed.the(Tablespaces).tablespaces
    assert (outside.oid, outside.path) == (found[0], os.fsencode(place))
    assert (inside.oid, inside.path) == (None, b"")
    assert list(streamed.archives) == [f"{found[0]}.tar", "base.tar"]
    in_tablespace = [path for path in streamed.manifest.files if path.startswith(b"pg_tblspc/")]
    assert in_tablespace
    assert set(in_tablespace) <= streamed.files().keys()
    assert streamed.files()[b"tablespace_map"] == f"{found[0]} {place}\n".encode()


def test_an_incremental_backup_follows_an_uploaded_manifest(cluster: PostgresServer) -> None:
    if cluster.major < 17:
        pytest.skip("incremental backups came with PostgreSQL 17")
    with walsender(cluster) as connection:
        parent = Streamed.take(connection)
        upload_manifest(connection, bytes(parent.manifest_bytes))
        streamed = Streamed.take(connection, replace(OPTIONS, incremental=True))
    assert any(b"/INCREMENTAL." in path for path in streamed.manifest.files)
    assert (
        f"INCREMENTAL FROM LSN: {parent.the(Start).lsn}".encode()
        in (streamed.files()[b"backup_label"])
    )


def test_an_option_that_the_server_refuses_is_reported_in_its_words(
    cluster: PostgresServer,
) -> None:
    with (
        walsender(cluster) as connection,
        pytest.raises(PostgresCommandFailed, match=r"MAX_RATE.*SQLSTATE 22003"),
    ):
        Streamed.take(connection, replace(OPTIONS, max_rate=1))
