"""To which instant a drill goes, planned from a repository with several backups."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shared.domain.drill_target import AnyInstant
from shared.domain.lsn import Lsn
from shared.domain.recovery_target import ToTime
from shared.repository import layout
from shared.repository.backups import read_backup
from shared.repository.blob_store import BlobName
from shared.repository.documents import WalRange
from shared.repository.wal_metadata import WalMetadata
from tests.harness.memory_blob_store import MemoryBlobStore
from tests.harness.signed_repository import KID, NOON, Committed, SignedRepository
from worker.commands.drill_instant import Instant, plan_instant
from worker.commands.services import Services

HOUR = timedelta(hours=1)
SEGMENTS_AN_HOUR = 4


@pytest.fixture
def repository() -> SignedRepository:
    """Three backups, an hour apart, and the log from the first to an hour behind the last."""
    store = MemoryBlobStore(layout.CONTAINERS)
    made = SignedRepository(store)
    made.register()
    for number in range(3 * SEGMENTS_AN_HOUR):
        at = NOON + HOUR / SEGMENTS_AN_HOUR * number
        known = WalMetadata(
            KID, "0" * 64, 1 << 24, first_commit=at, last_commit=at + timedelta(minutes=14)
        )
        name = BlobName(layout.WAL, f"demo/00000001/{1:08X}{0:08X}{number + 2:08X}")
        store.create(name, b"sealed", metadata=known.to_blob())
    return made


@pytest.fixture
def backups(repository: SignedRepository) -> list[Committed]:
    return [repository.commit(at=NOON + HOUR * n, **_place(n)) for n in range(3)]


def _place(number: int) -> dict[str, Any]:
    begin = Lsn((2 + SEGMENTS_AN_HOUR * number << 24) + 0x28)
    end = Lsn(3 + SEGMENTS_AN_HOUR * number << 24)
    ranges = (WalRange(timeline=1, start=begin, end=end),)
    return {"start_lsn": begin, "stop_lsn": end, "wal": ranges}


def planned(repository: SignedRepository, backup: Committed, drill_id: str) -> Instant:
    settings = SimpleNamespace(worker=SimpleNamespace(transfer_threads=1))
    known = {"store": repository.store, "pinned": repository.pinned, "settings": settings}
    services = cast("Services", SimpleNamespace(**known))
    stored = read_backup(repository.store, backup.ref, repository.pinned)
    return plan_instant(services, stored, AnyInstant.RANDOM, named=True, drill_id=drill_id)


def times(repository: SignedRepository, backup: Committed) -> Iterator[datetime]:
    for number in range(40):
        instant = planned(repository, backup, str(number))
        assert instant.planned is not None
        assert instant.planned.backup.ref == backup.ref
        assert isinstance(instant.planned.plan.target, ToTime)
        yield instant.planned.plan.target.time


def test_a_random_instant_of_an_older_backup_is_one_before_the_next_backup_ended(
    repository: SignedRepository, backups: list[Committed]
) -> None:
    begin, end = NOON + timedelta(minutes=1), NOON + HOUR + timedelta(minutes=1)
    found = sorted(times(repository, backups[0]))
    assert begin <= found[0] < begin + HOUR / 4
    assert end - HOUR / 4 < found[-1] < end


def test_a_random_instant_of_the_newest_is_one_before_the_last_commit(
    repository: SignedRepository, backups: list[Committed]
) -> None:
    begin, end = NOON + 2 * HOUR + timedelta(minutes=1), NOON + 3 * HOUR - timedelta(minutes=1)
    found = sorted(times(repository, backups[2]))
    assert begin <= found[0] < begin + HOUR / 4
    assert end - HOUR / 4 < found[-1] < end


def test_a_second_attempt_goes_where_the_first_went_and_tells_between_what_it_was_drawn(
    repository: SignedRepository, backups: list[Committed]
) -> None:
    first, second = (planned(repository, backups[1], "a") for _ in range(2))
    assert first.planned is not None
    assert second.planned is not None
    assert first.planned.plan.target == second.planned.plan.target
    assert first.note == (
        f"drawn by the drill's id from {NOON + HOUR + timedelta(minutes=1)} "
        f"to {NOON + 2 * HOUR + timedelta(minutes=1)}"
    )
