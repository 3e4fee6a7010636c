"""A committed chain to restore from: a full backup and two incrementals of a small cluster.

Behind the last one there is WAL in the archive, in which a table `beyond` is made.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from local.postgres_server import PostgresServer
from shared.domain.backup import BackupKind
from tests.harness.archived_history import archive_wal
from tests.harness.chain_lab import ChainLab, Link, chain_lab
from tests.harness.chain_workloads import make_tablespaces
from tests.harness.postgres_clusters import DEFAULT_MAJOR
from tests.harness.worker_services import Site
from worker.commands.restore import RestoreRequest
from worker.keys.generate import KeySet

_ROWS: Final = "SELECT n AS id, repeat(md5(n::text), 6) AS body FROM generate_series(1, 8000) n"
_STAGES: Final = (
    (
        f"CREATE TABLE changed AS {_ROWS}",
        "CREATE INDEX changed_id ON changed (id)",
        f"CREATE TABLE shrunk AS {_ROWS}",
        f"CREATE TABLE spaced TABLESPACE outside AS {_ROWS}",
        f"CREATE TABLE dropped TABLESPACE inside AS {_ROWS}",
        f"CREATE TABLE kept TABLESPACE inside AS {_ROWS}",
        "CREATE TABLE empty (id integer)",
    ),
    (
        "UPDATE changed SET body = upper(body) WHERE id % 900 = 0",
        "UPDATE spaced SET body = upper(body) WHERE id < 50",
        "DELETE FROM shrunk WHERE id > 2000",
        "VACUUM shrunk",
        "DROP TABLE dropped",
    ),
    (
        "UPDATE changed SET body = 'last' WHERE id % 1300 = 0",
        "INSERT INTO spaced SELECT n, 'last' FROM generate_series(1, 500) n",
        "INSERT INTO shrunk SELECT n, 'last' FROM generate_series(1, 500) n",
        "CREATE TABLE late AS SELECT generate_series(1, 1000) AS id",
    ),
)


@dataclass(frozen=True)
class CommittedChain:
    """Read only; `copied` is yours. The source is stopped: its programs are there."""

    source: PostgresServer
    site: Site
    links: tuple[Link, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(link.label for link in self.links)

    def copied(self, folder: Path) -> "CommittedChain":
        return replace(self, site=self.site.copied(folder))

    def request(self, target: Path, number: int = -1) -> RestoreRequest:
        """Of one link; its tablespace goes beside the target."""
        request = self.site.request(target, tablespaces_below=target.parent, sync=False)
        return replace(request, label=self.labels[number])


def _take(lab: ChainLab) -> tuple[Link, ...]:
    make_tablespaces(lab.source, lab.place)
    links = []
    for number, stage in enumerate(_STAGES):
        with lab.source.connect() as connection:
            for statement in stage:
                connection.execute(statement)
        links.append(lab.take(BackupKind.INCREMENTAL if number else BackupKind.FULL))
    lab.source.query("CREATE TABLE beyond AS SELECT 4711 AS id")
    archive_wal(lab.site, lab.source)
    return tuple(links)


@pytest.fixture(scope="session")
def chain_of(worker_folder: Path, key_set: KeySet) -> Callable[[int], CommittedChain]:
    """`chain_of(17)`: the chain of that version's server, made once."""

    @cache
    def take(major: int) -> CommittedChain:
        place = worker_folder / f"chain-{major}"
        place.mkdir()
        place.chmod(0o711)
        with chain_lab(major, key_set, place) as lab:
            return CommittedChain(lab.source, lab.site, _take(lab))

    return take


@pytest.fixture(scope="session")
def committed_chain(chain_of: Callable[[int], CommittedChain]) -> CommittedChain:
    return chain_of(DEFAULT_MAJOR)
