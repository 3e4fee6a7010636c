"""A synthetic full is byte for byte what its chain restores to, and a backup like any other."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGKILL
from uuid import uuid4

import pytest

from local.postgres_server import StopMode
from local.unprivileged import make_reachable_directory, server_account
from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.cluster import cluster_name
from shared.errors import LeaseHeld, SegmentCorrupt
from shared.jobs.lease import hold
from shared.repository import layout
from shared.repository.backups import list_backups, read_backup
from shared.repository.blob_store import BlobName
from shared.repository.layout import BackupRef
from shared.repository.signatures import sign_document
from tests.harness.chain_lab import Link, chain_lab, differences
from tests.harness.chain_workloads import STAGES, make_tablespaces, perform
from tests.harness.killed_worker import run_and_kill
from tests.harness.restore_lab import flip_byte
from tests.harness.worker_services import CLUSTER, Site, WatchedStore
from worker.commands.backup import BackupOutcome
from worker.commands.cluster_identity import signer_of
from worker.commands.drill import DrillRequest, drill
from worker.commands.opened_backup import BackupIncomplete
from worker.commands.synthetic import (
    ChainSuspect,
    NothingToSynthesize,
    SyntheticRequest,
    synthesize,
)
from worker.commands.verify import verify
from worker.keys.generate import KeySet

pytestmark = [pytest.mark.integration]

MAIN = cluster_name(CLUSTER)
# The most that a test of the suite may spend on a chain: a full and two incrementals.
LINKS = (STAGES[0], STAGES[1], STAGES[4])


def synthetic(site: Site, **request: object) -> BackupOutcome:
    wanted = SyntheticRequest(**request)  # type: ignore[arg-type] # as the caller names them
    return synthesize(site.services(), site.cluster, wanted)


def labels(site: Site) -> list[str]:
    return sorted(ref.label.text for ref in list_backups(site.services().store, MAIN))


@pytest.mark.slow
@pytest.mark.parametrize("major", [17, 18])
def test_a_synthetic_full_restores_verifies_and_goes_on_like_the_chain_it_is_made_of(
    major: int, key_set: KeySet, place: Path
) -> None:
    with chain_lab(major, key_set, place) as lab:
        make_tablespaces(lab.source, place)
        links: list[Link] = []
        for stage in LINKS:
            perform(lab.source, stage)
            links.append(lab.take(BackupKind.INCREMENTAL if links else BackupKind.FULL))
        newest = links[-1].document
        lab.source.stop(StopMode.FAST)
        made = synthetic(lab.site).document

        assert (made.kind, made.depth, made.parent) == (BackupKind.FULL, 0, None)
        assert made.composed_of is not None
        assert made.composed_of.label == newest.label
        assert (made.start_lsn, made.stop_lsn) == (newest.start_lsn, newest.stop_lsn)
        assert (made.started_at, made.finished_at) == (newest.started_at, newest.finished_at)
        assert made.created_at > newest.created_at
        assert made.counter == newest.counter + 1
        assert {item.in_place for item in made.tablespaces} == {True, False}
        assert len(made.volumes) > 3
        assert lab.site.newest().label.text == made.label
        assert verify(lab.site.services(), lab.site.newest()).passed

        whole = Link(made, links[-1].dump)
        with lab.restored(whole) as restored, lab.restored(links[-1]) as expected:
            assert differences(restored, expected) == {}
            lab.judge(whole, restored)

        lab.source.start()
        perform(lab.source, STAGES[-1])
        following = lab.take()
        assert following.document.parent is not None
        assert following.document.parent.label == made.label
        with lab.restored(following) as restored:
            assert differences(restored, lab.combined(whole, following)) == {}
            lab.judge(following, restored)


@dataclass(frozen=True)
class Scene:
    """A chain of three that nobody changes; `labels` from the full on."""

    site: Site
    labels: tuple[str, ...]

    def folder(self, site: Site, link: int) -> Path:
        kind = "incremental" if link else "full"
        return site.repository / kind / CLUSTER / self.labels[link]


@pytest.fixture(scope="module")
def scene(key_set: KeySet, worker_folder: Path) -> Iterator[Scene]:
    place = Path(tempfile.mkdtemp(dir=worker_folder))
    make_reachable_directory(place, server_account())
    with chain_lab(17, key_set, place) as lab:
        lab.run("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 60000) n")
        found = [lab.take(BackupKind.FULL)]
        for statement in (
            "UPDATE t SET md5 = 'changed' WHERE n % 90 = 1",
            "UPDATE t SET md5 = 'changed again' WHERE n % 90 < 2",
        ):
            lab.run(statement)
            found.append(lab.take())
        site = lab.site
    yield Scene(site, tuple(link.label for link in found))
    shutil.rmtree(place)


@pytest.fixture
def site(scene: Scene, place: Path) -> Site:
    """With a copy of the scene's repository."""
    return scene.site.copied(place / "copy")


def test_only_a_chain_is_composed_and_only_while_nobody_makes_a_backup(
    scene: Scene, site: Site
) -> None:
    with pytest.raises(NothingToSynthesize, match=scene.labels[0]):
        synthetic(site, label=scene.labels[0])
    lock = layout.lock(MAIN, "backup").path
    with (
        hold(site.services().leases, lock, "somebody else", ttl_s=15),
        pytest.raises(LeaseHeld, match="somebody else"),
    ):
        synthetic(site)
    assert labels(site) == sorted(scene.labels)
    made = synthetic(site)
    with pytest.raises(NothingToSynthesize, match=made.label):
        synthetic(site)


def test_a_suspect_link_is_refused(scene: Scene, site: Site) -> None:
    services = site.services()
    ref = BackupRef(MAIN, BackupLabel.parse(scene.labels[-1]))
    document = read_backup(services.store, ref, services.pinned).document
    suspect = document.model_copy(update={"page_checksum_failures": 3})
    (scene.folder(site, 2) / "backup.json").write_bytes(sign_document(suspect, signer_of(services)))
    with pytest.raises(ChainSuspect, match=f"{ref.label} has 3 page checksum failures"):
        synthetic(site)
    assert synthetic(site, label=scene.labels[1]).document.depth == 0


def test_of_an_older_chain_it_is_as_old_as_its_data_and_still_the_last_that_was_committed(
    scene: Scene, site: Site
) -> None:
    job = uuid4()
    older = synthetic(site, label=scene.labels[1], job_id=job)
    assert site.newest().label.text == scene.labels[2]
    assert labels(site) == sorted([*scene.labels, older.label])
    assert older.document.counter == 4
    assert older.document.previous is not None
    assert older.document.previous.label == scene.labels[2]
    newest = synthetic(site)
    assert newest.document.previous is not None
    assert newest.document.previous.label == older.label
    assert newest.document.counter == 5
    assert synthetic(site, job_id=job) == older
    report = drill(site.services(), site.cluster, DrillRequest())
    assert (report.label, report.verdict) == (newest.label, "proven"), report.reason


@pytest.mark.parametrize("link", [0, 1, 2])
def test_damage_in_any_link_ends_it_with_nothing_committed(
    scene: Scene, site: Site, link: int
) -> None:
    volume = max(scene.folder(site, link).glob("base.pgdata.*"), key=os.path.getsize)
    flip_byte(volume, volume.stat().st_size // 2)
    with pytest.raises(SegmentCorrupt, match=re.escape(f"{scene.labels[link]}/{volume.name}")):
        synthetic(site)
    assert labels(site) == sorted(scene.labels)
    volume.unlink()
    with pytest.raises(BackupIncomplete, match=re.escape(scene.labels[link])):
        synthetic(site)
    assert labels(site) == sorted(scene.labels)


@pytest.mark.fault
def test_killed_at_any_moment_it_leaves_nothing_visible_and_no_lock(
    scene: Scene, site: Site
) -> None:
    watched = WatchedStore(scene.site.copied(site.folder / "watched").services().store)
    other = replace(site, folder=site.folder / "watched")
    synthesize(replace(other.services(), store=watched), other.cluster, SyntheticRequest())
    commits: list[BlobName] = watched.committed
    assert commits[-1].path.endswith("/backup.json"), "the document is the last commit"
    last = len(commits) - 1
    for moment, number in (("before", 2), ("during", 25), ("after", last - 1), ("before", last)):
        assert run_and_kill(site, "synthetic", moment, number) == -SIGKILL, (moment, number)
        assert labels(site) == sorted(scene.labels), (moment, number)
    made = synthetic(site)
    assert made.document.counter == 4
    assert verify(site.services(), site.newest()).passed
