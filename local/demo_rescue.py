"""The demo's disaster and the way out of it: a table emptied by mistake, recovered to just before.

The recovery is what an operator would type: `pgkeep restore … --to-time … --recover`, beside the
source, which goes on.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from local.configuration import CLUSTER, DATABASE
from local.demo_progress import Step
from local.demo_watch import Stage, await_result
from local.document_database.mistake import Mistake, TableContent, content
from local.pgkeep_verb import pgkeep
from local.postgres_server import PostgresServer
from local.stack import Servers
from local.stack_directory import StackDirectory
from shared import adapters
from shared.domain.cluster import cluster_name
from shared.repository import layout
from shared.repository.wal_metadata import WalMetadata

BEFORE = timedelta(seconds=1)
_ARCHIVED_S = 60.0


@dataclass(frozen=True, slots=True)
class Rescue:
    """What a cluster recovered to `target` holds; `rto_s` from the command to the first answer."""

    mistake: Mistake
    target: datetime
    found: TableContent
    rto_s: float
    phases_ms: dict[str, int]

    @property
    def equal(self) -> bool:
        return self.found == self.mistake.lost


def await_archived(stage: Stage, step: Step, at: datetime) -> None:
    """Until the archive holds a commit after `at`: then the instant before it can be reached."""
    store = adapters.blob_store(stage.settings.repository, threads=1)
    prefix = layout.wal_prefix(cluster_name(CLUSTER))

    def look() -> bool | None:
        blobs = list(store.list(layout.WAL, prefix))
        step.update(0, 0, f"{len(blobs)} objects")
        found = filter(None, (WalMetadata.from_blob(blob.metadata) for blob in blobs))
        return any(item.last_commit and item.last_commit > at for item in found) or None

    await_result(stage, look, _ARCHIVED_S, f"WAL of {at:%H:%M:%S} in the repository")


def rescue(directory: StackDirectory, servers: Servers, mistake: Mistake) -> Rescue:
    """Recover to the second before the mistake, open the copy, look at the table."""
    target = (mistake.at - BEFORE).astimezone(UTC)
    began = time.monotonic()
    words = ("restore", CLUSTER, str(directory.rescued / "data"), "--recover")
    restored = pgkeep(servers.config, *words, "--to-time", target.isoformat())
    source = servers.source
    with PostgresServer(source.programs, directory.rescued, source.passwords) as copy:
        rto = time.monotonic() - began
        with copy.connect(DATABASE) as connection:
            found = content(connection)
    return Rescue(mistake, target, found, rto, restored["phases_ms"])
