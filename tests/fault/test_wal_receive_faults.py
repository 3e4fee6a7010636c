"""What goes wrong while WAL is received: afterwards the archive has no hole, and every byte."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest

from local.azurite import EmulatedAccount
from local.postgres_initdb import BACKUP_USER
from local.postgres_server import PostgresServer, StopMode
from shared.azure_storage.patience import RetryBudget
from shared.domain.lsn import Lsn
from shared.errors import LeaseLost, StorageDenied, StorageUnavailable
from shared.jobs.lease import Lease, LeaseRecord, LeaseStore
from shared.repository import layout
from shared.repository.azure_blob_store import open_blob_store
from shared.repository.blob_store import BlobInfo, BlobName
from tests.harness.deadline import wait_until
from tests.harness.http_fault_proxy import PUT_BLOB, Fault, Harm, HttpFaultProxy, azure_error
from tests.harness.killed_receiver import dying_receiver
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.tcp_proxy import OpenProxy
from tests.harness.wal_receiver import (
    LIMIT_S,
    MIB,
    SMALL,
    assert_archive_is,
    durable_end,
    flushed,
    receiving,
    restart_lsn,
    wait_until_flushed,
    wait_until_sent,
    with_wal,
    write_wal,
)
from tests.harness.worker_services import Site, WatchedStore, make_site
from worker.keys.generate import KeySet

pytestmark = [pytest.mark.integration, pytest.mark.fault]

BRIEF = RetryBudget(total_s=0.5, first_pause_s=0.05, longest_pause_s=0.2)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outages of these tests last seconds; a receiver shall notice their end soon."""
    monkeypatch.setattr("worker.commands.wal_receive._LONGEST_PAUSE_S", 0.5)


@pytest.fixture
def server(make_cluster: MakeCluster) -> PostgresServer:
    """With segments of 1 MiB, all of which it keeps."""
    return make_cluster(SMALL)


@pytest.fixture
def site(place: Path, key_set: KeySet, server: PostgresServer) -> Site:
    """An empty directory repository for `server`."""
    return with_wal(make_site(place / "site", key_set, server, database="postgres"))


def assert_all_is_there(site: Site, server: PostgresServer, end: Lsn) -> None:
    assert_archive_is(site, server.data / "pg_wal", end, segment_size=MIB)


def assert_nothing_is_acknowledged_that_is_not_durable(site: Site, server: PostgresServer) -> None:
    assert (restart_lsn(server) or 0) <= durable_end(site, segment_size=MIB)
    assert (flushed(server) or 0) <= durable_end(site, segment_size=MIB)


@pytest.mark.slow
def test_w10_w11_killed_before_or_after_any_commit_it_goes_on_without_a_hole(
    site: Site, server: PostgresServer
) -> None:
    with receiving(site):
        wait_until(lambda: restart_lsn(server), LIMIT_S, "the slot is there")
        begin = restart_lsn(server) or Lsn(0)
    # Each process first commits its key record, then segments and tails.
    moments = [
        ("before", 0),
        ("after", 0),
        ("before", 1),
        ("after", 1),
        ("before", 3),
        ("after", 4),
    ]
    for moment, number in moments:
        with dying_receiver(site, moment, number):
            write_wal(server, 5)
        assert_nothing_is_acknowledged_that_is_not_durable(site, server)
    with receiving(site):
        end = write_wal(server)
        wait_until_flushed(server, end)
    start = assert_archive_is(site, server.data / "pg_wal", end, segment_size=MIB)
    assert start <= begin


@pytest.mark.parametrize("mode", [StopMode.FAST, StopMode.IMMEDIATE, None])
def test_a_server_that_restarts_is_followed(
    site: Site, server: PostgresServer, mode: StopMode | None
) -> None:
    with receiving(site):
        wait_until_flushed(server, write_wal(server, 2))
        write_wal(server, 3)
        if mode is None:
            server.kill()
        else:
            server.stop(mode)
        server.start()
        end = write_wal(server, 2)
        wait_until_flushed(server, end)
    assert_all_is_there(site, server, end)


def test_what_came_from_a_server_that_died_is_kept(site: Site, server: PostgresServer) -> None:
    """Its disk may be lost with it, and nobody else has the tail."""
    with receiving(with_wal(site, flush_seconds=3600)):
        end = write_wal(server, 2)
        wait_until_sent(server, end)
        assert (flushed(server) or 0) < end
        server.kill()
        wait_until(lambda: durable_end(site, segment_size=MIB) >= end, LIMIT_S, "it is stored")
    assert_all_is_there(site, server, end)


def test_a_connection_that_is_cut_again_and_again_costs_time_only(
    site: Site, server: PostgresServer, open_proxy: OpenProxy
) -> None:
    proxy = open_proxy("127.0.0.1", server.port)
    dsn = f"{server.dsn('postgres', BACKUP_USER)} port={proxy.port}"
    with receiving(site.changed(cluster={"dsn": dsn})):
        wait_until_flushed(server, write_wal(server))
        for n_bytes in (100_000, 3 * MIB):
            proxy.cut_after(n_bytes)
            wait_until_flushed(server, write_wal(server, 5))
        proxy.cut_all()
        end = write_wal(server, 2)
        wait_until_flushed(server, end)
    proxy.assert_fired()
    assert_all_is_there(site, server, end)


@dataclass
class Outage(WatchedStore):
    """A store that fails while `ended` is not set. Everything, or only what goes into `wal`."""

    ended: Event = field(default_factory=Event)
    only_wal: bool = False
    refused: int = 0

    def __post_init__(self) -> None:
        self.before = self._refuse
        self.ended.set()

    def _refuse(self, name: BlobName) -> None:
        if not self.ended.is_set() and (name.container == layout.WAL or not self.only_wal):
            self.refused += 1
            raise StorageUnavailable("storage is away")

    def list(
        self, container: str, prefix: str = "", *, start: str = "", page: int | None = None
    ) -> Iterator[BlobInfo]:
        self._refuse(BlobName(container, prefix))
        return super().list(container, prefix, start=start, page=page)


@pytest.mark.parametrize("only_wal", [False, True])
def test_w12_during_an_outage_of_storage_nothing_is_acknowledged_and_nothing_dropped(
    site: Site,
    server: PostgresServer,
    only_wal: bool,  # noqa: FBT001 - pytest gives it by name
) -> None:
    store = Outage(site.services().store, only_wal=only_wal)
    with receiving(site, store=store) as receiver:
        known = write_wal(server, 2)
        wait_until_flushed(server, known)
        reached = durable_end(site, segment_size=MIB)
        store.ended.clear()
        end = write_wal(server, 3)
        while store.refused < 6:
            assert (flushed(server) or 0) <= reached
            assert (restart_lsn(server) or 0) <= reached
        assert durable_end(site, segment_size=MIB) == reached
        assert not receiver.done.done()
        store.ended.set()
        wait_until_flushed(server, end)
    assert_all_is_there(site, server, end)


def test_w12_an_outage_of_azure_beyond_all_patience_is_outlasted(
    azurite_account: EmulatedAccount, server: PostgresServer, key_set: KeySet, place: Path
) -> None:
    proxy = HttpFaultProxy(azurite_account.blob_url)
    made = make_site(place / "site", key_set, server, storage=azurite_account, database="postgres")
    site = with_wal(made)
    store = open_blob_store(proxy.url, azurite_account.credential, retry=BRIEF)
    with receiving(site, store=store):
        wait_until_flushed(server, write_wal(server))
        with proxy.outage() as end_of_outage:
            before = durable_end(site, segment_size=MIB)
            end = write_wal(server, 3)
            gone = "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM pg_stat_replication)"
            wait_until(lambda: server.query(gone), LIMIT_S, "the session has ended")
            assert (restart_lsn(server) or 0) <= before
            end_of_outage()
        wait_until_flushed(server, end)
        proxy.script(
            azure_error(PUT_BLOB, 503, "ServerBusy"),
            Fault(Harm.DROP_AFTER, PUT_BLOB),  # stored, but we do not hear of it
            Fault(Harm.HALF_REQUEST, PUT_BLOB),
        )
        end = write_wal(server, 4)
        wait_until_flushed(server, end)
    proxy.close()
    assert_all_is_there(site, server, end)


@pytest.mark.slow
def test_a_slow_storage_makes_the_server_wait_and_does_not_lose_the_connection(
    site: Site, server: PostgresServer
) -> None:
    """W13: more WAL than may be under way, for longer than wal_sender_timeout."""
    server.configure({"wal_sender_timeout": "3s"})
    server.reload()
    opened = Event()
    opened.set()

    def hold(name: BlobName) -> None:
        if name.container == layout.WAL:
            assert opened.wait(LIMIT_S)

    slow = site.changed(wal={"parallel": 1})
    with receiving(slow, store=WatchedStore(site.services().store, before=hold)):
        wait_until_flushed(server, write_wal(server))
        sender = server.query("SELECT pid FROM pg_stat_replication")
        opened.clear()
        end = write_wal(server, 30)
        Event().wait(4.5)
        assert (flushed(server) or 0) < end - 25 * MIB
        assert server.query("SELECT pid FROM pg_stat_replication") == sender
        opened.set()
        wait_until_flushed(server, end)
        assert server.query("SELECT pid FROM pg_stat_replication") == sender
    assert_all_is_there(site, server, end)


@dataclass
class Robbed:
    """Leases of which one is lost when `robbed` is set."""

    store: LeaseStore
    robbed: bool = False
    tokens: list[int] = field(default_factory=list)

    def acquire(self, name: str, holder: str, ttl_s: int) -> Lease:
        lease = self.store.acquire(name, holder, ttl_s)
        self.tokens.append(lease.token)
        return lease

    def renew(self, lease: Lease) -> None:
        if self.robbed:
            self.robbed = False
            raise LeaseLost(f"lease {lease.name} was broken")
        self.store.renew(lease)

    def release(self, lease: Lease) -> None:
        self.store.release(lease)

    def current(self, name: str) -> LeaseRecord | None:
        return self.store.current(name)


def test_a_receiver_that_lost_its_lease_starts_anew(
    site: Site, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.jobs.lease._RENEWALS_PER_TTL", 100)
    leases = Robbed(site.services().leases)
    with receiving(site, leases=leases):
        wait_until_flushed(server, write_wal(server, 2))
        leases.robbed = True
        wait_until(lambda: len(leases.tokens) == 2, LIMIT_S, "the lease is taken again")
        end = write_wal(server, 2)
        wait_until_flushed(server, end)
    first, second = leases.tokens
    assert second > first
    assert_all_is_there(site, server, end)


def test_what_does_not_pass_by_itself_ends_it(site: Site, server: PostgresServer) -> None:
    def deny(name: BlobName) -> None:
        if name.container == layout.WAL:
            raise StorageDenied("the identity may not write")

    store = WatchedStore(site.services().store, before=deny)
    write_wal(server, 2)
    with pytest.raises(StorageDenied), receiving(site, store=store) as receiver:
        receiver.done.result(LIMIT_S)
    assert (restart_lsn(server) or 0) <= write_wal(server)
    assert durable_end(site, segment_size=MIB) == 0


def test_a_receiver_that_is_told_to_stop_stores_the_tail_first(
    site: Site, server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    patient = with_wal(site, flush_seconds=3600)
    with caplog.at_level(logging.INFO, "pgkeep"), receiving(patient) as receiver:
        wait_until(lambda: flushed(server), LIMIT_S, "it streams")
        end = write_wal(server, 2)
        assert (flushed(server) or 0) < end
        receiver.stop()
    assert durable_end(site, segment_size=MIB) >= end
    assert (restart_lsn(server) or 0) >= end
    assert caplog.records[-1].getMessage() == "wal-receive-stopped"
    assert_all_is_there(site, server, end)
