"""A cluster's WAL archive to write to and read from, and hand-made segments to put there."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from local.azurite import EmulatedAccount
from local.postgres_server import PostgresServer
from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName, WalObject, WalPiece, segment_name
from shared.jobs.wal_events import WalEvent
from shared.repository import layout
from shared.repository.blob_store import BlobInfo, BlobName
from shared.repository.documents import ClusterDocument
from shared.repository.wal_metadata import WalMetadata
from tests.harness.wal_pages import MIB, SYSTEM, WalWriter
from tests.harness.worker_services import CLUSTER, make_site
from worker.commands.cluster_identity import register
from worker.commands.services import Services
from worker.commands.wal_archive import Stored, WalArchive
from worker.commands.wal_reader import WalReader
from worker.keys.generate import KeySet

NOON: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
HISTORY: Final = WalFileName.parse("00000002.history")
LABEL: Final = WalFileName.parse("000000010000000000000001.00000028.backup")


@dataclass
class WalLab:
    """A cluster's archive, and what its writers reported."""

    services: Services
    cluster: ClusterDocument
    heard: list[WalEvent] = field(default_factory=list)

    def send(self, event: WalEvent) -> None:
        self.heard.append(event)

    def archive(self, **changes: object) -> WalArchive:
        """A new session; `changes` replaces some of its services."""
        services = replace(self.services, **changes)  # type: ignore[arg-type]
        return WalArchive(services, self.cluster, self, "agent")

    def put(self, item: WalObject, content: bytes) -> Stored:
        """In a session of its own, so under a key of its own."""
        with self.archive() as archive:
            return archive.put(item, content)

    def reader(self, **changes: object) -> WalReader:
        return WalReader(replace(self.services, **changes), self.cluster)  # type: ignore[arg-type]

    def blob(self, item: WalObject) -> BlobName:
        return layout.wal_blob(ClusterName(CLUSTER), item)

    def stored(self, container: str = layout.WAL) -> dict[str, BlobInfo]:
        return {info.name.path: info for info in self.services.store.list(container)}

    def metadata(self, item: WalObject) -> WalMetadata:
        found = WalMetadata.from_blob(self.stored()[self.blob(item).path].metadata)
        assert found is not None
        return found

    def replaced(self, item: WalObject, change: Callable[[bytes], bytes], **told: str) -> None:
        """What only somebody with the right to delete can do: other bytes, other metadata."""
        store, name = self.services.store, self.blob(item)
        info = store.head(name)
        raw = store.read(name, limit=info.size)
        store.delete(name)
        store.create(name, change(raw), metadata={**info.metadata, **told} if told else {})


def lab_at(
    place: Path, keys: KeySet, source: PostgresServer, account: EmulatedAccount | None
) -> WalLab:
    services = make_site(place / "site", keys, source, storage=account).services()
    return WalLab(services, register(services, ClusterName(CLUSTER), str(SYSTEM)))


@pytest.fixture(params=["directory", "azurite"])
def wal_lab(
    request: pytest.FixtureRequest, place: Path, key_set: KeySet, source_cluster: PostgresServer
) -> WalLab:
    """One for each kind of store."""
    account: EmulatedAccount | None = None
    if request.param == "azurite":
        account = request.getfixturevalue("azurite_account")
    return lab_at(place, key_set, source_cluster, account)


@pytest.fixture
def local_wal_lab(place: Path, key_set: KeySet, source_cluster: PostgresServer) -> WalLab:
    """For what has nothing to do with the kind of store."""
    return lab_at(place, key_set, source_cluster, None)


def segment(number: int = 1, filler: int = 100, timeline: int = 1) -> tuple[WalFileName, bytes]:
    """A segment of 1 MiB with two commits and a restore point."""
    writer = WalWriter(Lsn(number * MIB), timeline=timeline, segment_size=MIB)
    writer.fill(filler)
    writer.end_transaction(NOON)
    writer.restore_point(b"release 7, t\xc3\xa4glich", NOON)
    writer.fill(50_000)
    writer.end_transaction(NOON + timedelta(minutes=number))
    return WalFileName.parse(segment_name(timeline, writer.start, MIB)), writer.segment()


def put_piece(lab: WalLab, name: WalFileName, content: bytes, start: int, stop: int) -> WalPiece:
    piece = WalPiece.of(name, start, stop)
    assert lab.put(piece, content[start:stop]) is Stored.NEW
    return piece
