"""Labels follow one another, and documents are numbered as they are committed."""

from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import pytest

from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.cluster import ClusterName
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.layout import CONTAINERS
from tests.harness.signed_repository import NOON, SignedRepository
from worker.commands.committed_backups import (
    committed_by,
    last_committed,
    next_label,
    synthetic_label,
)
from worker.commands.services import Services

DEMO = ClusterName("demo")
SECOND = timedelta(seconds=1)
JOB = UUID(int=4711)


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    store = DirectoryBlobStore(tmp_path)
    for container in CONTAINERS:
        store.create_container(container)
    return SignedRepository(store)


def services_of(repository: SignedRepository) -> Services:
    return cast("Services", SimpleNamespace(store=repository.store, pinned=repository.pinned))


def next_time(repository: SignedRepository, now: datetime) -> datetime:
    return next_label(services_of(repository), DEMO, BackupKind.FULL, now).time


def test_a_label_follows_that_of_the_last_backup_even_within_one_second(
    repository: SignedRepository,
) -> None:
    noon = NOON.replace(microsecond=0)
    assert next_time(repository, NOON) == noon
    repository.commit(at=NOON)
    assert next_time(repository, NOON) == noon + SECOND
    assert next_time(repository, noon + SECOND) == noon + SECOND
    assert next_time(repository, noon + 5 * SECOND) == noon + 5 * SECOND
    # A clock was far ahead once: it must not rule all later labels.
    assert next_time(repository, noon - timedelta(hours=1)) == noon - timedelta(hours=1)


def test_a_synthetic_full_sorts_right_behind_its_chain() -> None:
    newest = BackupLabel.new(BackupKind.INCREMENTAL, NOON)
    later = BackupLabel.new(BackupKind.INCREMENTAL, NOON + SECOND)
    assert newest < synthetic_label(newest) < later
    assert synthetic_label(newest).kind is BackupKind.FULL


def test_the_last_that_was_committed_may_be_a_synthetic_full_of_an_older_chain(
    repository: SignedRepository,
) -> None:
    services = services_of(repository)
    assert last_committed(services, DEMO) is None
    full = repository.commit(at=NOON)
    older = repository.commit(
        at=NOON + timedelta(hours=1), previous=full, parent=full.link, counter=2
    )
    newest = repository.commit(
        at=NOON + timedelta(hours=2), previous=older, parent=older.link, depth=2, counter=3
    )
    found = last_committed(services, DEMO)
    assert found is not None
    assert found.ref == newest.ref
    composed = repository.commit(
        at=NOON + timedelta(hours=1) + SECOND,
        previous=newest,
        composed_of=older.link,
        counter=4,
        job_id=JOB,
    )
    found = last_committed(services, DEMO)
    assert found is not None
    assert found.ref == composed.ref
    mine = committed_by(services, DEMO, JOB)
    assert mine is not None
    assert mine.ref == composed.ref
    assert committed_by(services, DEMO, UUID(int=1)) is None
    assert committed_by(services, DEMO, None) is None
