"""Recovery that begins with a backup of a standby, with WAL from its primary and from itself."""

from pathlib import Path

import pytest

from local.postgres_initdb import BACKUP_USER
from local.postgres_server import PostgresServer
from shared.domain.backup import BackupSource
from shared.domain.lsn import Lsn
from shared.domain.recovery_target import RecoveryTarget, ToLatest, ToLsn
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.standby_pair import LIMIT_S, standby_pair
from tests.harness.wal_receiver import KEEPING, durable_end, receiving, with_wal
from tests.harness.worker_services import Site, StartRestored, make_site
from worker.commands.recover import recover
from worker.commands.recovery import RecoveryRequest
from worker.keys.generate import KeySet

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.mark.postgres
def test_a_backup_of_a_standby_is_recovered_with_wal_of_either_server(
    make_cluster: MakeCluster, key_set: KeySet, place: Path, start_restored: StartRestored
) -> None:
    with standby_pair(make_cluster, key_set, place, KEEPING) as pair:
        of_primary = with_wal(pair.site)
        dsn = pair.standby.dsn("postgres", BACKUP_USER)
        made = make_site(place / "cascaded", key_set, pair.standby, database="postgres")
        of_standby = with_wal(made.changed(cluster={"dsn": dsn}))
        with receiving(of_primary), receiving(of_standby):
            for site in (of_primary, of_standby):
                assert site.backup().document.source is BackupSource.STANDBY
            ends = [_commit(pair.primary, n) for n in range(2000, 2004)]
            for site in (of_primary, of_standby):
                _await_archived(site, ends[-1])
    to_lsn = _recovered(of_primary, place / "to-lsn", ToLsn(ends[1], inclusive=False))
    latest = _recovered(of_standby, place / "latest", ToLatest())
    query = "SELECT max(n), count(*) FROM kept"
    assert start_restored(to_lsn, pair.primary).query(query) == [(2001, 1002)]
    assert start_restored(latest, pair.primary).query(query) == [(2003, 1004)]


def _commit(primary: PostgresServer, n: int) -> Lsn:
    """Where the WAL went on behind it; other WAL follows."""
    with primary.connect() as sql:
        sql.execute("INSERT INTO kept VALUES (%s)", [n])
        row = sql.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        sql.execute("SELECT pg_logical_emit_message(true, 'pgkeep', 'between')")
    assert row is not None
    return Lsn.parse(row[0])


def _await_archived(site: Site, end: Lsn) -> None:
    wait_until(lambda: durable_end(site) > end, LIMIT_S, f"{end} is archived")


def _recovered(site: Site, folder: Path, target: RecoveryTarget) -> Path:
    folder.mkdir(parents=True, mode=0o711)
    data = folder / "data"
    site.changed()
    recover(site.services(), site.request(data, recovery=RecoveryRequest(target)))
    return data
