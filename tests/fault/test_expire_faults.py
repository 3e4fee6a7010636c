"""`expire` dies at each of its deletions: nothing half is visible, the next run completes it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from shared.domain.backup import BackupKind
from shared.domain.recovery_window import recovery_windows
from shared.errors import LeaseLost, StorageDenied, StorageUnavailable
from shared.repository import layout
from shared.repository.blob_store import BlobName
from shared.repository.expiry_documents import ExpiryReport
from shared.repository.header_verification import verify_header
from shared.repository.layout import BackupRef
from shared.repository.reports import read_report
from shared.settings.policy import Retention
from tests.harness.aged_repository import (
    NAME,
    AgedRepository,
    FatalStore,
    Killed,
    aged_directory,
)
from worker.commands.expiry_survey import survey

pytestmark = [pytest.mark.integration, pytest.mark.fault]

DAYS = 12
RETENTION = Retention(full_days=5, incremental_days=2, wal_days=5, litter_days=8)


@pytest.fixture(scope="module")
def made() -> Iterator[AgedRepository]:
    """Read only: a chain of three and a full backup that go, two that stay, and WAL."""
    with TemporaryDirectory(prefix="pgkeep-expire-") as folder:
        site = aged_directory(Path(folder), DAYS, retention=RETENTION)
        old = site.full(0)
        first = site.incremental(1, old)
        site.incremental(2, first, depth=2)
        for day in (3, 6, 11):
            site.full(day)
        site.archive(range(DAYS))
        yield site


def left(site: AgedRepository) -> list[BlobName]:
    return site.blobs("full", "incremental", "wal")


def holds(site: AgedRepository) -> None:
    """I1: what is visible is whole. I4: a good full with continuous WAL to the newest is there.

    And whatever the policy promises can be recovered to.
    """
    names = [layout.parse_backup_blob(name) for name in site.blobs("full", "incremental")]
    refs = [ref for ref, own in names if own == layout.BACKUP_DOCUMENT]
    for ref in refs:
        assert verify_header(site.store, ref, site.repository.pinned).findings == (), ref.label
    found = survey(site.services(), NAME, RETENTION, site.now)
    assert found.plan.floor is not None
    windows = recovery_windows(found.candidates, found.archive.listed())
    newest = max(windows, key=lambda window: window.end)
    assert newest.started_at <= site.now - 5 * (site.now - site.origin) / DAYS
    assert newest.last_commit == site.now - (site.now - site.origin) / DAYS / 24


def reported(site: AgedRepository) -> list[str]:
    """What all reports together say is gone."""
    names = [name for name in site.blobs("evidence") if "/expiries/" in name.path]
    reports = [read_report(site.store, name, site.repository.pinned).report for name in names]
    expiries = [report for report in reports if isinstance(report, ExpiryReport)]
    return sorted(one.label for report in expiries for one in report.went)


def test_expiry_that_dies_at_any_deletion_is_completed_by_the_next_run(
    made: AgedRepository, tmp_path: Path
) -> None:
    whole = made.copied(tmp_path / "whole")
    counting = FatalStore(whole.store)
    whole.expire(1, store=counting)
    wanted, expected = left(whole), reported(whole)
    assert (len(expected), len(counting.deleted)) == (4, 4 * 4 + 6)

    for allowed in range(len(counting.deleted) + 1):
        site = made.copied(tmp_path / f"{allowed}")
        # With all deletions allowed it dies before it has stored its report.
        fatal = FatalStore(site.store, before=die_before_report, allowed=allowed)
        with pytest.raises(Killed):
            site.expire(2, store=fatal)
        holds(site)

        # The same job again, or the job of the next day.
        site.expire(2 if allowed % 2 else 3)

        assert left(site) == wanted, f"died at deletion {allowed}"
        assert reported(site) == expected


def die_before_report(name: BlobName) -> None:
    if "/expiries/" in name.path:
        raise Killed


def test_i3_nothing_but_backups_and_wal_of_the_cluster_is_ever_deleted(
    made: AgedRepository, tmp_path: Path
) -> None:
    site = made.copied(tmp_path / "site")
    store = FatalStore(site.store)

    site.expire(1, store=store)

    assert {name.container for name in store.deleted} == {"full", "incremental", "wal"}
    assert all(name.path.startswith("demo/") for name in store.deleted)
    backups = [name for name in store.deleted if name.container != "wal"]
    order = [layout.parse_backup_blob(name) for name in backups]
    seen: list[BackupRef] = []
    for ref, own in order:
        if ref not in seen:
            assert own == layout.BACKUP_DOCUMENT, "the document goes before any of its parts"
            seen.append(ref)
    assert [ref.kind for ref in seen] == [
        BackupKind.INCREMENTAL,
        BackupKind.INCREMENTAL,
        BackupKind.FULL,
        BackupKind.FULL,
    ]
    assert store.deleted[-1].container == "wal"


@dataclass
class RefusingStore(FatalStore):
    """Storage that fails at the fifth deletion."""

    error: Exception = field(default_factory=lambda: StorageDenied("denied"))

    def delete(self, name: BlobName) -> None:
        if len(self.deleted) == 4:
            raise self.error
        super().delete(name)


@pytest.mark.parametrize("error", [StorageDenied("denied"), StorageUnavailable("away")])
def test_storage_that_fails_ends_the_run_and_the_next_one_completes_it(
    made: AgedRepository, tmp_path: Path, error: Exception
) -> None:
    site = made.copied(tmp_path / "site")
    store = RefusingStore(site.store, error=error)

    with pytest.raises(type(error)):
        site.expire(1, store=store)
    holds(site)
    site.expire(1)
    assert len(reported(site)) == 4


def test_a_lease_that_is_lost_ends_the_run_before_the_next_deletion(
    made: AgedRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = made.copied(tmp_path / "site")
    lost = LeaseLost("lease is lost")
    checks = iter([None, None, None, lost])

    def check(_self: object) -> None:
        error = next(checks, lost)
        if error is not None:
            raise error

    monkeypatch.setattr("shared.jobs.lease.Renewal.check", check)
    store = FatalStore(site.store)
    with pytest.raises(LeaseLost):
        site.expire(1, store=store)

    assert len(store.deleted) <= 2
