"""A primary and a standby that follows it; the settings name both, with the role for backups."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.postgres_initdb import BACKUP_USER, ClusterOptions
from local.postgres_server import PostgresServer
from shared.domain.lsn import Lsn
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import MakeCluster, make_standby
from tests.harness.worker_services import Site, make_site
from worker.keys.generate import KeySet

LIMIT_S = 30


@dataclass(frozen=True)
class Pair:
    """Two running servers. The site's `dsn` is the primary's."""

    primary: PostgresServer
    standby: PostgresServer
    site: Site

    def with_settings(self, **cluster: Any) -> Site:
        """The same place with other settings of the cluster."""
        return self.site.changed(cluster=cluster)

    def catch_up(self) -> Lsn:
        """Wait until the standby has replayed what the primary has written; how far that is."""
        ((end,),) = self.primary.query("SELECT pg_current_wal_flush_lsn()::text")
        with self.standby.connect() as connection:
            query = "SELECT 1 WHERE pg_last_wal_replay_lsn() >= %s::pg_lsn"
            wait_until(
                lambda: connection.execute(query, [end]).fetchall(), LIMIT_S, f"{end} is replayed"
            )
        return Lsn.parse(end)

    def checkpoint(self) -> Lsn:
        """Have the primary make one, and the standby replay it; where the WAL then ends."""
        self.primary.query("CHECKPOINT")
        return self.catch_up()


@contextmanager
def standby_pair(
    make_cluster: MakeCluster, keys: KeySet, place: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Pair]:
    """`settings` are those of both servers. The primary holds the table `kept`."""
    primary = make_cluster(ClusterOptions(settings=settings or {}))
    primary.query("CREATE TABLE kept AS SELECT n FROM generate_series(1, 1000) n")
    with make_standby(primary, place / "standby") as standby:
        site = make_site(place / "site", keys, primary, database="postgres")
        dsn = standby.dsn("postgres", BACKUP_USER)
        pair = Pair(primary, standby, site.changed(cluster={"standby": dsn}))
        pair.catch_up()
        yield pair
