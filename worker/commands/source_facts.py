"""Facts about the source, recorded around a backup and kept sealed beside it for the drill."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.domain.backup import BackupSource
from shared.domain.drill import SnapshotFacts
from shared.errors import Corrupt
from shared.repository import layout
from shared.repository.documents import PostgresFacts
from shared.settings import ClusterSettings
from worker.commands.cluster_login import connect_to
from worker.commands.opened_backup import OpenedBackup
from worker.postgres.cluster_facts import ServerFacts, next_transaction, server_facts
from worker.postgres.table_facts import TableName, table_facts


class SourceFacts(BaseModel):
    """The sealed object `facts`: what names tables and databases, so never in clear."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = "pgkeep-facts-1"
    server: ServerFacts
    start: tuple[SnapshotFacts, ...]
    end: tuple[SnapshotFacts, ...]

    def to_json(self) -> bytes:
        return self.model_dump_json().encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Raises Corrupt."""
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            raise Corrupt(
                f"the sealed facts do not read: {fault['loc']}: {fault['type']}"
            ) from None


@dataclass(frozen=True, slots=True)
class FactsRecorder:
    """Counts before the stream begins and again after its stop position is known; only then is
    `next_xid` asked.
    """

    server: ServerFacts
    start: tuple[SnapshotFacts, ...]
    count: Callable[[tuple[SnapshotFacts, ...]], tuple[SnapshotFacts, ...]]
    next_xid: Callable[[], int]

    @classmethod
    def begin(cls, cluster: ClusterSettings, statement_timeout_s: int) -> Self:
        """Raises what connecting and TableName.parse raise; a table that cannot be counted is a
        fact of its own, not an error."""
        connect = connect_to(cluster)
        tables = [
            TableName.parse(name, default_database=cluster.database) for name in cluster.tables
        ]

        def count(since: tuple[SnapshotFacts, ...]) -> tuple[SnapshotFacts, ...]:
            return table_facts(
                connect, tables, since=since, statement_timeout_s=statement_timeout_s
            )

        server = server_facts(connect, cluster.database)
        return cls(server, count(()), count, partial(next_transaction, connect, cluster.database))

    def end(self) -> SourceFacts:
        return SourceFacts(server=self.server, start=self.start, end=self.count(self.start))

    @property
    def source(self) -> BackupSource:
        return BackupSource.STANDBY if self.server.in_recovery else BackupSource.PRIMARY

    @property
    def postgres(self) -> PostgresFacts:
        """What the clear document says of the server: no name of a database among it."""
        server = self.server
        collations = {
            f"{item.collation_provider} {item.collation_version}"
            for item in server.databases
            if item.collation_version
        }
        return PostgresFacts(
            version_num=server.version_num,
            version=server.version,
            block_size=server.block_size,
            wal_segment_size=server.wal_segment_size,
            data_checksums=server.data_checksums,
            collation_versions=tuple(sorted(collations)),
            extensions=tuple(sorted({e for item in server.databases for e in item.extensions})),
            preload_libraries=server.preload_libraries,
        )


def read_facts(backup: OpenedBackup) -> SourceFacts:
    """What was recorded at backup time. Raises as reading a sealed object does."""
    with ThreadPoolExecutor(1) as executor:
        return SourceFacts.from_json(b"".join(backup.object_chunks(layout.FACTS, executor)))
