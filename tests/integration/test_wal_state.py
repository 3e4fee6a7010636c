"""What `pgkeep show` says of the archive, from blob names alone."""

import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from local.postgres_server import PostgresServer
from shared.domain.cluster import cluster_name
from shared.domain.lsn import Lsn
from shared.domain.wal_segment import WalFileName, WalObject, WalPiece, segment_name
from shared.repository import layout
from shared.repository.wal_metadata import WalMetadata
from tests.harness.worker_services import CLUSTER, Site, make_site
from worker.commands import printed_wal
from worker.commands.services import Services
from worker.commands.wal_state import WalState, wal_state
from worker.keys.generate import KeySet

pytestmark = pytest.mark.integration

NAME = cluster_name(CLUSTER)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SIZE = 16 << 20
KID = "k" + "a" * 26


def segment(number: int, timeline: int = 1) -> WalFileName:
    return WalFileName.parse(segment_name(timeline, Lsn(number * SIZE), SIZE))


def put(services: Services, item: WalObject, size: int, minute: int | None) -> None:
    at = None if minute is None else NOON + timedelta(minutes=minute)
    told = WalMetadata(KID, sha256(b"").hexdigest(), size, at, at)
    services.store.create(layout.wal_blob(NAME, item), b"sealed", metadata=told.to_blob())


@pytest.fixture
def services(place: Path, key_set: KeySet, source_cluster: PostgresServer) -> Services:
    made = make_site(place / "site", key_set, source_cluster).services()
    (place / "site" / "repository" / layout.WAL).mkdir(parents=True, exist_ok=True)
    return made


@pytest.fixture
def state(services: Services) -> WalState:
    """Two timelines: the first with a hole, the second with a tail in a piece without commits."""
    for number in (3, 4, 7):
        put(services, segment(number), SIZE, number)
    put(services, segment(7, timeline=2), SIZE, 9)
    put(services, WalPiece.of(segment(8, timeline=2), 0, 8192), 8192, None)
    return wal_state(services, NAME)


def test_each_timeline_says_how_far_it_is_archived_and_w03_what_it_lacks(state: WalState) -> None:
    first, second = state.timelines
    assert (first.start, first.through) == (Lsn(3 * SIZE), Lsn(8 * SIZE))
    assert first.gaps == ((Lsn(5 * SIZE), Lsn(7 * SIZE)),)
    assert first.first_commit == NOON + timedelta(minutes=3)
    assert first.through_commit == NOON + timedelta(minutes=7)
    assert second.through == Lsn(8 * SIZE + 8192)
    assert second.through_commit == NOON + timedelta(minutes=9)
    assert (second.gaps, second.stored_bytes) == ((), 12)


def test_programs_get_one_document_and_people_a_table(
    state: WalState, capsys: pytest.CaptureFixture[str]
) -> None:
    printed_wal.wal_state(state, as_json=True)
    first, second = json.loads(capsys.readouterr().out)["wal"]
    assert (first["through"], second["through"]) == ("0/8000000", "0/8002000")
    assert first["gaps"] == [{"start": "0/5000000", "end": "0/7000000"}]
    assert first["through_commit"] == "2026-11-22T12:07:00+00:00"
    printed_wal.wal_state(state, as_json=False)
    shown = capsys.readouterr().out
    assert "0/8002000" in shown
    assert "gap: timeline 1 lacks 0/5000000 to 0/7000000" in shown


def test_an_archive_without_wal_says_so(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    found = wal_state(services, NAME)
    assert found.timelines == ()
    printed_wal.wal_state(found, as_json=False)
    assert capsys.readouterr().out == "WAL archive: empty\n"


def test_the_size_of_segments_is_known_from_the_newest_backup(
    committed_site: Site, place: Path
) -> None:
    services = committed_site.copied(place / "copy").services()
    put(services, WalPiece.of(segment(200), 0, 8192), 8192, 1)
    found = wal_state(services, NAME)
    assert Lsn(200 * SIZE + 8192) in {one.through for one in found.timelines}
