"""The servers of the local stack, and the fixtures that give them to tests."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock, BlobServiceClient
from azure.storage.queue import QueueServiceClient

from local.azurite import Azurite, AzuriteFailed, EmulatedAccount
from local.postgres_initdb import BACKUP_USER, ClusterOptions
from local.postgres_server import PostgresServer, PostgresServerFailed, StopMode
from local.unprivileged import server_account
from tests.harness.azurite import CONTAINERS
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.sample_database import DATABASE, ROWS

pytestmark = pytest.mark.integration


@pytest.mark.postgres
def test_a_cluster_has_what_backups_need(source_cluster: PostgresServer) -> None:
    asked = ("wal_level", "max_wal_senders", "data_checksums", "server_encoding", "fsync")
    values = [source_cluster.query(f"SHOW {name}")[0][0] for name in asked]
    assert values == ["replica", "10", "on", "UTF8", "off"]
    if source_cluster.major >= 17:
        assert source_cluster.query("SHOW summarize_wal") == [("on",)]


@pytest.mark.postgres
def test_the_source_cluster_holds_the_sample(
    source_cluster: PostgresServer, postgres_major: int
) -> None:
    assert source_cluster.major == postgres_major
    counts = {
        table: source_cluster.query(f"SELECT count(*) FROM {table}", DATABASE)[0][0]  # noqa: S608
        for table in ROWS
    }
    assert counts == ROWS
    (chunks,) = source_cluster.query(
        "SELECT pg_relation_size(reltoastrelid) / 8192 FROM pg_class WHERE relname = 'documents'",
        DATABASE,
    )
    assert chunks[0] > 100


@pytest.mark.postgres
def test_the_backup_user_replicates_and_reads_no_table(source_cluster: PostgresServer) -> None:
    conninfo = source_cluster.dsn(user=BACKUP_USER) + " replication=true"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        assert connection.execute("IDENTIFY_SYSTEM").fetchone()
    with (
        source_cluster.connect(DATABASE, BACKUP_USER) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("SELECT FROM users")


def test_passwords_are_asked_for_and_lie_in_a_private_file(source_cluster: PostgresServer) -> None:
    address = f"host=127.0.0.1 port={source_cluster.port} user=postgres"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(address, password="wrong")  # noqa: S106
    with psycopg.connect(address, passfile=str(source_cluster.passfile)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("postgres",)
    assert source_cluster.passfile.stat().st_mode & 0o777 == 0o600


def test_the_unix_socket_answers_too(source_cluster: PostgresServer) -> None:
    with psycopg.connect(
        host=str(source_cluster.socket_directory),
        port=source_cluster.port,
        user="postgres",
        password=source_cluster.passwords["postgres"],
    ) as connection:
        assert connection.execute("SELECT inet_client_addr()").fetchone() == (None,)


def test_a_directory_too_deep_for_a_socket_has_it_elsewhere(
    make_cluster: MakeCluster, server_directory: Path
) -> None:
    source = make_cluster()
    source.stop()
    deep = server_directory / ("d" * 100)
    deep.mkdir(0o711)
    source.data.rename(deep / "data")
    with PostgresServer(source.programs, deep, source.passwords) as server:
        assert server.query("SELECT 1") == [(1,)]
        elsewhere = server.socket_directory
        assert len(str(elsewhere)) < 80
    assert not elsewhere.exists()


@pytest.mark.postgres
def test_options_of_a_new_cluster_are_heeded(make_cluster: MakeCluster) -> None:
    server = make_cluster(
        ClusterOptions(
            checksums=False,
            wal_segment_mb=1,
            backup_user_reads_data=True,
            settings={"search_path": "'$user', public, \"it's\""},
        )
    )
    assert server.query("SHOW data_checksums") == [("off",)]
    assert server.query("SHOW wal_segment_size") == [("1MB",)]
    assert server.query("SHOW search_path") == [("'$user', public, \"it's\"",)]
    server.query("CREATE TABLE secret AS SELECT 1 AS n")
    with server.connect(user=BACKUP_USER) as connection:
        assert connection.execute("SELECT n FROM secret").fetchall() == [(1,)]


@pytest.mark.parametrize("mode", StopMode)
def test_what_was_committed_is_there_after_each_way_to_stop(
    make_cluster: MakeCluster, mode: StopMode
) -> None:
    server = make_cluster()
    port = server.port
    server.query("CREATE TABLE kept AS SELECT 42 AS n")
    server.stop(mode)
    assert not server.running
    server.start()
    assert server.port == port
    assert server.query("SELECT n FROM kept") == [(42,)]


def test_a_killed_server_leaves_no_process_and_recovers(make_cluster: MakeCluster) -> None:
    server = make_cluster()
    server.query("CREATE TABLE kept AS SELECT 42 AS n")
    children = psutil.Process(server.pid).children(recursive=True)
    assert len(children) >= 4
    server.kill()
    assert [child for child in children if is_alive(child)] == []
    server.start()
    assert "was not properly shut down" in server.log()
    assert server.query("SELECT n FROM kept") == [(42,)]


def test_settings_change_by_reload(make_cluster: MakeCluster) -> None:
    server = make_cluster()
    server.configure({"work_mem": "5MB"})
    assert server.query("SHOW work_mem") != [("5MB",)]
    server.reload()
    wait_until(lambda: server.query("SHOW work_mem") == [("5MB",)], 10, "the new work_mem")


def test_a_server_that_cannot_start_says_why(make_cluster: MakeCluster) -> None:
    server = make_cluster()
    server.stop()
    server.configure({"shared_preload_libraries": "no_such_library"})
    with pytest.raises(PostgresServerFailed, match="no_such_library"):
        server.start()
    assert not server.running


def test_a_lost_port_is_replaced(make_cluster: MakeCluster) -> None:
    server = make_cluster()
    server.stop()
    with socket.create_server(("127.0.0.1", server.port)) as thief:
        server.start()
        assert server.port != thief.getsockname()[1]
    assert server.query("SELECT 1") == [(1,)]


def test_a_copy_made_by_us_starts_with_the_passwords_of_its_source(
    make_cluster: MakeCluster, server_directory: Path
) -> None:
    source = make_cluster()
    source.query("CREATE TABLE kept AS SELECT 42 AS n")
    source.stop()
    shutil.copytree(source.data, server_directory / "data")
    with PostgresServer(source.programs, server_directory, source.passwords) as copy:
        assert copy.query("SELECT n FROM kept") == [(42,)]
        assert copy.port != source.port
    account = server_account()
    assert (server_directory / "data").stat().st_uid == (account.uid if account else os.getuid())


OWNER_OF_A_SERVER = """
import sys
from pathlib import Path
from local.postgres_programs import find
from local.postgres_server import PostgresServer
server = PostgresServer(find(17), Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.readline()
"""


def test_a_server_ends_with_its_owner_even_if_that_was_killed(make_cluster: MakeCluster) -> None:
    server = make_cluster()
    server.stop()
    with subprocess.Popen(
        [sys.executable, "-c", OWNER_OF_A_SERVER, str(server.directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        postmaster = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
    wait_until(lambda: not is_alive(postmaster), 20, "the end of the postmaster")


def test_each_test_has_an_account_of_its_own(
    azurite: Azurite, azurite_account: EmulatedAccount, fresh_azurite_account: EmulatedAccount
) -> None:
    assert azurite_account is fresh_azurite_account  # one per test, with containers made in it
    other = azurite.account(azurite.account_name)
    with blobs(azurite_account) as mine, blobs(other) as theirs:
        assert sorted(found.name for found in mine.list_containers()) == sorted(CONTAINERS)
        assert list(theirs.list_containers()) == []


def test_queues_work_in_such_an_account(azurite_account: EmulatedAccount) -> None:
    with (
        QueueServiceClient(
            azurite_account.queue_url, credential=azurite_account.credential
        ) as client,
        client.create_queue("jobs") as queue,
    ):
        queue.send_message("work")
        assert [message.content for message in queue.receive_messages()] == ["work"]


def test_https_has_a_certificate_that_its_authority_vouches_for(azurite_https: Azurite) -> None:
    account = azurite_https.account(azurite_https.account_name)
    assert account.blob_url.startswith("https://127.0.0.1:")
    with blobs(account) as client:
        assert list(client.list_containers()) == []


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 65_535, 1_000_003])
def test_checksums_of_blocks_are_still_checked(azurite_account: EmulatedAccount, size: int) -> None:
    data = os.urandom(size)
    with (
        blobs(azurite_account) as client,
        client.get_blob_client("full", f"{size}") as blob,
    ):
        if size:
            blob.stage_block("1", data, validate_content="crc64")
            blob.stage_block("2", data, validate_content="md5")
            blob.commit_block_list([BlobBlock("1"), BlobBlock("2")])
            assert blob.download_blob().readall() == data * 2
        blob.upload_blob(data, overwrite=True, validate_content="crc64")
        assert blob.download_blob().readall() == data


@pytest.mark.parametrize(
    ("header", "code"), [("x-ms-content-crc64", "Crc64Mismatch"), ("Content-MD5", "Md5Mismatch")]
)
def test_a_wrong_checksum_is_refused(
    azurite_account: EmulatedAccount, header: str, code: str
) -> None:
    wrong = {"x-ms-content-crc64": "AAAAAAAAAAA=", "Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}
    with (
        blobs(azurite_account) as client,
        client.get_blob_client("full", "v") as blob,
        pytest.raises(HttpResponseError, match=code),
    ):
        blob.stage_block("1", b"data", headers={header: wrong[header]})


def test_a_directory_keeps_blobs_over_a_restart_at_the_same_address(tmp_path: Path) -> None:
    with Azurite(tmp_path / "store") as emulator:
        account = emulator.account(emulator.account_name)
        with blobs(account) as client, client.create_container("full") as container:
            container.upload_blob("kept", b"content")
            emulator.stop()
            assert not emulator.running
            emulator.start()
            assert emulator.blob_url == account.blob_url
            assert container.download_blob("kept").readall() == b"content"


def test_an_azurite_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    emulator = Azurite(tmp_path / "file")
    with pytest.raises(AzuriteFailed, match=r"EEXIST|ENOTDIR"):
        emulator.__enter__()
    assert not emulator.running


def test_a_stopped_azurite_forgets_what_was_in_memory(tmp_path: Path) -> None:
    with Azurite(None) as emulator, blobs(emulator.account(emulator.account_name)) as client:
        client.create_container("full").close()
        emulator.stop()
        emulator.start()
        assert list(client.list_containers()) == []
        assert list(tmp_path.iterdir()) == []


def blobs(account: EmulatedAccount) -> BlobServiceClient:
    verify = str(account.ca_file) if account.ca_file else True
    return BlobServiceClient(
        account.blob_url, credential=account.credential, connection_verify=verify
    )


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
