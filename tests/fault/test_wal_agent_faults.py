"""An agent that dies at any moment: PostgreSQL keeps what was not acknowledged, nothing is lost."""

import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer
from shared import adapters
from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName, segments_between
from shared.repository import layout
from shared.repository.backups import read_cluster
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.wal_agents import LIMIT_S, agent_process, client, with_agent
from tests.harness.worker_services import CHECKOUT, CLUSTER, Site, make_site
from worker.commands.wal_client_copy import archive_command
from worker.commands.wal_reader import WalReader
from worker.keys.generate import KeySet

pytestmark = [pytest.mark.fault, pytest.mark.integration, pytest.mark.slow]

MIB = 1 << 20
_ARCHIVING = {"archive_mode": "on", "archive_command": "false", "wal_keep_size": "1GB"}


@pytest.fixture
def archiving(make_cluster: MakeCluster) -> PostgresServer:
    return make_cluster(ClusterOptions(wal_segment_mb=1, settings=_ARCHIVING))


@pytest.fixture
def site(place: Path, key_set: KeySet, archiving: PostgresServer) -> Site:
    site = with_agent(make_site(place / "site", key_set, archiving, database="postgres"))
    adapters.create_containers(site.settings.repository)
    return site


def write_segments(server: PostgresServer, count: int) -> None:
    with server.connect() as sql:
        for _ in range(count):
            sql.execute("SELECT pg_logical_emit_message(true, 'filler', repeat('x', 100000))")
            sql.execute("SELECT pg_switch_wal()")


def ready(server: PostgresServer) -> list[str]:
    folder = server.data / "pg_wal" / "archive_status"
    return sorted(path.stem for path in folder.glob("*.ready"))


def test_w10_w11_killed_before_or_after_each_commit_an_agent_leaves_no_gap_and_no_wrong_byte(
    site: Site, archiving: PostgresServer
) -> None:
    archiving.configure({"archive_command": archive_command(site.settings.wal.socket)})
    for moment, number in product(("before", "after"), range(3)):
        write_segments(archiving, 3)
        with agent_process(site, moment, number) as process:
            archiving.reload()  # wakes the archiver
            assert process.wait(LIMIT_S) == -signal.SIGKILL
        assert archiving.query("SELECT pg_is_in_recovery()") == [(False,)]
        assert_archived_is_stored(site, archiving)
    with agent_process(site):
        archiving.reload()
        wait_until(lambda: not ready(archiving), LIMIT_S, "the backlog is archived")
    assert_archived_is_stored(site, archiving)
    ((last,),) = archiving.query("SELECT last_archived_wal FROM pg_stat_archiver")
    end = Lsn(int(last[8:16], 16) << 32 | int(last[16:], 16) * MIB)
    first = min(name for name in stored(site) if len(name) == 24)
    start = Lsn(int(first[8:16], 16) << 32 | int(first[16:], 16) * MIB)
    assert stored(site) >= set(segments_between(1, start, end + MIB, MIB))
    assert "archiver process" not in archiving.log()


def assert_archived_is_stored(site: Site, server: PostgresServer) -> None:
    """Whatever PostgreSQL took for archived opens, and is what PostgreSQL wrote."""
    services = site.services()
    document = read_cluster(services.store, ClusterName(CLUSTER), services.pinned)
    folder = server.data / "pg_wal"
    done = [path.stem for path in (folder / "archive_status").glob("*.done")]
    assert document is not None or not done
    for name in done:
        assert document is not None
        read = WalReader(services, document).read(WalFileName.parse(name))
        assert read == (folder / name).read_bytes(), name


def stored(site: Site) -> set[str]:
    listed = site.services().store.list(layout.WAL)
    return {info.name.path.rpartition("/")[2] for info in listed}


def test_w18_a_client_whose_agent_dies_under_it_ends_with_a_status_that_counts(
    site: Site, archiving: PostgresServer
) -> None:
    write_segments(archiving, 1)
    name = ready(archiving)[0]
    file = archiving.data / "pg_wal" / name
    with agent_process(site, "before", 2) as process:  # after cluster.json and the key's record
        said = client(site.settings.wal.socket, "push", file, name)
        assert process.wait(LIMIT_S) == -signal.SIGKILL
    assert (said.status, "wal-agent-unreachable" in said.line) == (1, True)
    assert stored(site) == set()


def test_the_command_serves_until_it_is_told_to_stop_and_stops_in_order(
    site: Site, archiving: PostgresServer
) -> None:
    write_segments(archiving, 1)
    name, socket = ready(archiving)[0], site.settings.wal.socket
    command = [sys.executable, "-m", "worker", "wal", "agent", CLUSTER, "--config"]
    with subprocess.Popen(
        [*command, str(site.config)], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: socket.exists() or process.poll() is not None, LIMIT_S, "it listens")
        assert client(socket, "push", archiving.data / "pg_wal" / name, name).status == 0
        second = site.pgkeep("wal", "agent", CLUSTER)
        assert (second.returncode, "wal-socket-taken" in second.stderr) == (7, True)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, log
    for event in ("wal-agent-started", "wal-progress", "wal-agent-stopping"):
        assert event in log
    assert not socket.exists()
    assert name in stored(site)
