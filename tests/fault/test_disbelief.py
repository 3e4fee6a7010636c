"""What nobody would believe is not written, and junk in the repository stops no backup."""

from pathlib import Path
from uuid import uuid4

import pytest

from shared.jobs.messages import VerifyJob
from shared.repository.backups import list_backups
from tests.harness.worker_services import CLUSTER, Site
from worker.commands.cluster_identity import SignerUnbelieved
from worker.commands.part_proof import DigestMismatch
from worker.commands.perform import perform
from worker.commands.verify import verify
from worker.keys.generate import generate_key_set

pytestmark = [pytest.mark.integration, pytest.mark.fault]


def test_a_backup_is_refused_whose_signature_nobody_would_believe(site: Site, place: Path) -> None:
    strangers = generate_key_set(place / "strangers")
    unbelieved = site.changed(
        keys={"signing": {"type": "pem", "path": str(strangers.signing.private)}}
    )
    with pytest.raises(SignerUnbelieved, match="is not pinned"):
        unbelieved.backup()
    assert list(list_backups(site.services().store)) == []


def test_a_foreign_blob_that_looks_like_a_document_stops_no_backup(site: Site) -> None:
    site.services()  # makes the containers
    for name in ("main/no-label/backup.json", "Main/20261122T030000Z-F-aaaa/backup.json"):
        junk = site.repository / "full" / name
        junk.parent.mkdir(parents=True)
        junk.write_text("junk")
    label = site.backup().label
    assert [ref.label.text for ref in list_backups(site.services().store)] == [label]


def test_a_document_other_than_the_one_asked_about_is_not_verified(committed_site: Site) -> None:
    label = committed_site.newest().label.text
    job = VerifyJob(job_id=uuid4(), cluster=CLUSTER, label=label, document_digest="0" * 64)
    with pytest.raises(DigestMismatch, match="instead of 000"):
        perform(committed_site.services(), job)


def test_two_deliveries_of_one_job_leave_one_report(committed_site: Site, place: Path) -> None:
    copy = committed_site.copied(place / "site")
    before = _reports(copy)
    first = verify(copy.services(), copy.newest(), report_id="one")
    again = verify(copy.services(), copy.newest(), report_id="one")
    assert again == first
    assert _reports(copy) - before == {"one"}


def _reports(site: Site) -> set[str]:
    """Other tests verify the same backup, and may have come before."""
    folder = site.repository / "evidence" / CLUSTER / "verifications"
    return {path.name for path in folder.iterdir()} if folder.exists() else set()
