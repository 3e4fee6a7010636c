"""What goes wrong around a backup: each time a clear error, nothing visible, a clean next run."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest

from local.azurite import EmulatedAccount
from local.free_port import free_port
from local.postgres_initdb import BACKUP_USER, ClusterOptions
from local.postgres_server import PostgresServer
from shared.domain.cluster import cluster_name
from shared.errors import (
    LeaseHeld,
    LeaseLost,
    PgkeepError,
    PostgresAuthenticationFailed,
    PostgresConnectionsExhausted,
    PostgresGone,
    PostgresUnreachable,
    ReplicationDenied,
    StorageUnavailable,
)
from shared.jobs.lease import Lease, LeaseRecord, LeaseStore
from shared.repository import layout
from shared.repository.backups import list_backups
from shared.repository.blob_store import BlobName
from shared.repository.key_record import TooFewRecipients
from tests.harness.http_fault_proxy import (
    PUT_BLOCK,
    PUT_BLOCK_LIST,
    Fault,
    Harm,
    HttpFaultProxy,
    azure_error,
)
from tests.harness.postgres_clusters import MakeCluster, make_standby
from tests.harness.sample_database import DATABASE
from tests.harness.tcp_proxy import OpenProxy
from tests.harness.worker_services import CLUSTER, Site, WatchedStore, make_site
from worker.commands.backup import BackupRequest, back_up
from worker.commands.cluster_identity import SignerMissing, WrongSystem
from worker.commands.verify import verify
from worker.keys.generate import KeySet
from worker.keys.key_file import KeyFileMissing

pytestmark = [pytest.mark.integration, pytest.mark.fault]

WRONG = "canary"


def refused(site: Site, expected: type[PgkeepError], **changes: object) -> PgkeepError:
    """A backup that must fail; what it raises, after the invariants were checked."""
    before = list(list_backups(site.services().store))
    with pytest.raises(expected) as caught:
        site.backup(**changes)
    services = site.services()
    assert list(list_backups(services.store)) == before
    assert services.leases.current(layout.lock(cluster_name(CLUSTER), "backup").path) is None
    assert caught.value.fact
    assert caught.value.advice
    return caught.value


def blobs(site: Site) -> list[str]:
    store = site.services().store
    found = [str(info.name) for kind in layout.CONTAINERS for info in store.list(kind)]
    return [name for name in found if not name.startswith("state/")]


def dsn(source: PostgresServer, **changes: object) -> str:
    fields = {
        "host": "127.0.0.1",
        "port": source.port,
        "dbname": DATABASE,
        "user": BACKUP_USER,
        "password": source.passwords[BACKUP_USER],
        **changes,
    }
    return " ".join(f"{name}={value}" for name, value in fields.items())


def test_b01_a_wrong_password_is_told_before_anything_is_written(
    site: Site, source_cluster: PostgresServer
) -> None:
    wrong = site.changed(cluster={"dsn": dsn(source_cluster, password=WRONG)})
    error = refused(wrong, PostgresAuthenticationFailed)
    assert WRONG not in error.fact
    assert f"user={BACKUP_USER}" in error.fact
    assert blobs(site) == []


def test_b01_a_role_without_replication_is_told_before_anything_is_written(
    site: Site, source_cluster: PostgresServer
) -> None:
    role = f"plain_{uuid4().hex[:8]}"
    with source_cluster.connect() as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{WRONG}'")
    plain = site.changed(cluster={"dsn": dsn(source_cluster, user=role, password=WRONG)})
    assert "replication" in refused(plain, ReplicationDenied).fact.lower()
    assert blobs(site) == []


def test_a_server_that_is_not_there_may_be_tried_again(site: Site) -> None:
    away = f"host=127.0.0.1 port={free_port()} user=x dbname=x"
    error = refused(site.changed(cluster={"dsn": away}), PostgresUnreachable)
    assert error.retryable
    assert blobs(site) == []


def test_b02_without_a_free_walsender_the_backup_may_be_tried_again(
    make_cluster: MakeCluster, key_set: KeySet, place: Path
) -> None:
    source = make_cluster(ClusterOptions(settings={"max_wal_senders": "0", "wal_level": "replica"}))
    site = make_site(place / "site", key_set, source, database="postgres")
    assert refused(site, PostgresConnectionsExhausted).retryable


def test_b04_a_walsender_that_is_terminated_leaves_nothing_visible_and_the_next_run_is_clean(
    site: Site, source_cluster: PostgresServer
) -> None:
    def terminate(name: BlobName) -> None:
        if name.path.endswith("base.pgdata.0000"):
            source_cluster.query(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_replication"
                " WHERE application_name = 'pgkeep'"
            )

    store = WatchedStore(site.services().store, after=terminate)
    assert refused(site, PostgresGone, store=store).retryable
    assert [name for name in store.committed if name.path.endswith("base.pgdata.0000")]
    assert site.backup().document.counter == 1
    assert verify(site.services(), site.newest()).passed
    assert source_cluster.query("SELECT count(*) FROM pg_stat_replication") == [(0,)]


def test_b05_a_connection_cut_in_the_middle_of_the_stream_ends_the_backup(
    site: Site, source_cluster: PostgresServer, open_proxy: OpenProxy
) -> None:
    proxy = open_proxy("127.0.0.1", source_cluster.port)
    through = site.changed(cluster={"dsn": dsn(source_cluster, port=proxy.port)})
    proxy.cut_after(20 << 20)
    assert refused(through, PostgresGone).retryable
    assert through.backup().document.counter == 1


def test_b06_a_server_that_is_stopped_meanwhile_ends_the_backup(
    make_cluster: MakeCluster, key_set: KeySet, place: Path
) -> None:
    source = make_cluster()
    site = make_site(place / "site", key_set, source, database="postgres")

    def stop(name: BlobName) -> None:
        if name.path.endswith("base.pgdata.0000"):
            source.kill()

    store = WatchedStore(site.services().store, before=stop)
    assert refused(site, PostgresGone, store=store).retryable


def test_b16_a_standby_that_is_promoted_meanwhile_gives_no_backup(
    make_cluster: MakeCluster, key_set: KeySet, place: Path
) -> None:
    primary = make_cluster()
    standby = make_standby(primary, place / "standby")
    with standby:
        site = make_site(place / "site", key_set, standby, database="postgres")

        def promote(name: BlobName) -> None:
            if name.path.endswith("base.pgdata.0000"):
                assert standby.query("SELECT pg_promote(true, 30)") == [(True,)]

        store = WatchedStore(site.services().store, before=promote)
        error = refused(site, PgkeepError, store=store)
        assert "promoted" in error.fact or "timeline" in error.fact


def test_b17_a_second_backup_at_once_is_refused_with_the_holder(
    site: Site, source_cluster: PostgresServer
) -> None:
    streaming, go_on = Event(), Event()

    def pause(name: BlobName) -> None:
        if name.path.endswith("base.pgdata.0000"):
            streaming.set()
            assert go_on.wait(30)

    slow = replace(
        site.services(),
        store=WatchedStore(site.services().store, before=pause),
        host="first-host/42",
    )
    with ThreadPoolExecutor(1) as executor:
        first = executor.submit(back_up, slow, site.cluster, BackupRequest())
        try:
            assert streaming.wait(30)
            with pytest.raises(LeaseHeld, match=r"first-host/42 \(by hand\)"):
                site.backup()
        finally:
            go_on.set()
        assert first.result(60).document.counter == 1
    assert len(list(list_backups(site.services().store))) == 1


class Robbed:
    """Leases that are lost as soon as somebody asks whether they still hold."""

    def __init__(self, store: LeaseStore) -> None:
        self._store = store
        self.robbed = False

    def acquire(self, name: str, holder: str, ttl_s: int) -> Lease:
        return self._store.acquire(name, holder, ttl_s)

    def renew(self, lease: Lease) -> None:
        if self.robbed:
            raise LeaseLost(f"lease {lease.name} was broken")
        self._store.renew(lease)

    def release(self, lease: Lease) -> None:
        self._store.release(lease)

    def current(self, name: str) -> LeaseRecord | None:
        return self._store.current(name)


def test_i8_a_backup_that_lost_its_lease_does_not_commit(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.jobs.lease._RENEWALS_PER_TTL", 300)
    services = site.services()
    leases = Robbed(services.leases)

    def rob(name: BlobName) -> None:
        if name.path.endswith("/facts"):
            leases.robbed = True
            Event().wait(0.5)  # several renewals

    store = WatchedStore(services.store, before=rob)
    refused(site, LeaseLost, store=store, leases=leases)
    assert not [name for name in store.committed if name.path.endswith("backup.json")]


def test_b22_another_system_under_the_same_name_is_refused(
    site: Site, make_cluster: MakeCluster, source_cluster: PostgresServer
) -> None:
    site.backup()
    stranger = make_cluster()
    other = site.changed(cluster={"dsn": dsn(stranger, dbname="postgres"), "database": "postgres"})
    before = blobs(site)
    error = refused(other, WrongSystem)
    for server in (source_cluster, stranger):
        ((system,),) = server.query("SELECT system_identifier::text FROM pg_control_system()")
        assert system in error.fact
    assert blobs(site) == before


def test_k05_production_refuses_a_single_recipient_and_development_does_not(site: Site) -> None:
    one = {"recipients": [{"type": "pem", "path": str(site.keys.wrapping.public)}]}
    alone = site.changed(keys=one)
    error = refused(alone, TooFewRecipients)
    assert "alone" in error.fact
    assert [name for name in blobs(site) if "/keys/" in name] == []
    values = {**alone.values, "profile": "development"}
    assert replace(alone, values=values).changed().backup().document.counter == 1


def test_a_missing_key_file_or_signer_is_told_before_anything_is_written(site: Site) -> None:
    gone = site.changed(keys={"signing": {"type": "pem", "path": "/nowhere/signing.pem"}})
    with pytest.raises(KeyFileMissing, match=r"/nowhere/signing\.pem"):
        gone.services()
    nobody = {name: value for name, value in site.values["keys"].items() if name != "signing"}
    unsigned = replace(site, values={**site.values, "keys": nobody}).changed()
    refused(unsigned, SignerMissing)
    assert blobs(site) == []


@pytest.fixture
def hurt_storage(azurite_account: EmulatedAccount) -> Iterator[HttpFaultProxy]:
    proxy = HttpFaultProxy(azurite_account.blob_url)
    yield proxy
    proxy.close()


@pytest.fixture
def hurt_site(
    azurite_account: EmulatedAccount,
    hurt_storage: HttpFaultProxy,
    key_set: KeySet,
    source_cluster: PostgresServer,
    place: Path,
) -> Site:
    """Uploads through the proxy that hurts them."""
    through = replace(azurite_account, blob_url=hurt_storage.url)
    return make_site(place / "site", key_set, source_cluster, storage=through)


def test_u02_a_busy_storage_in_the_middle_of_an_upload_is_outwaited_with_the_same_bytes(
    hurt_site: Site, hurt_storage: HttpFaultProxy
) -> None:
    hurt_storage.script(
        azure_error(PUT_BLOCK, 503, "ServerBusy", times=3),
        azure_error(PUT_BLOCK_LIST, 500, "InternalError"),
        Fault(Harm.DROP_AFTER, PUT_BLOCK, times=2, skip=2),
        Fault(Harm.DROP_AFTER, PUT_BLOCK_LIST),
        Fault(Harm.FLIP_REQUEST_BIT, PUT_BLOCK, skip=3),
    )
    outcome = hurt_site.backup()
    assert len(hurt_storage.fired) == 8  # the fixture sees to it that none is left over
    report = verify(hurt_site.services(), hurt_site.newest())
    assert report.passed, report.findings
    assert report.stored_bytes == outcome.document.stored_size


def test_u02_an_outage_of_the_storage_in_the_middle_of_a_backup_is_outlasted(
    hurt_site: Site, hurt_storage: HttpFaultProxy
) -> None:
    began, may_begin = Event(), Event()

    def pause(name: BlobName) -> None:
        if name.path.endswith("base.pgdata.0001"):
            began.set()
            assert may_begin.wait(30)

    store = WatchedStore(hurt_site.services().store, before=pause)
    with ThreadPoolExecutor(1) as executor:
        backup = executor.submit(lambda: hurt_site.backup(store=store))
        assert began.wait(30)
        with hurt_storage.outage() as end:
            may_begin.set()
            Event().wait(2)
            assert not backup.done()
            end()
        assert backup.result(60).document.counter == 1
    assert verify(hurt_site.services(), hurt_site.newest()).passed


def test_a_full_repository_disk_is_told_and_may_be_tried_again(site: Site) -> None:
    class Full(WatchedStore):
        def stage_block(self, name: BlobName, block_id: str, data: bytes) -> None:
            raise StorageUnavailable(f"{name}: no space left on device")

    error = refused(site, StorageUnavailable, store=Full(site.services().store))
    assert error.retryable
    assert site.backup().document.counter == 1
