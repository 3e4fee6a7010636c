"""`expire` on real stores: what goes, what stays, what is told, and what it refuses to do."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import pytest
import typer

from local.azurite import EmulatedAccount
from shared.domain.drill import DrillVerdict
from shared.domain.lsn import Lsn
from shared.errors import LeaseHeld
from shared.jobs.file_lease import FileLeases
from shared.jobs.lease import hold
from shared.jobs.messages import ExpireJob
from shared.repository import layout
from shared.repository.azure_blob_store import open_blob_store
from shared.repository.blob_store import BlobName
from shared.repository.expiry_documents import ExpiryReport
from shared.repository.header_verification import verify_header
from shared.repository.reports import read_report
from shared.repository.tombstones import tombstone_of
from shared.repository.wal_metadata import WalMetadata
from shared.settings.policy import Retention
from tests.harness.aged_repository import (
    CLUSTER,
    DAY,
    NAME,
    SEGMENT,
    AgedRepository,
    WormStore,
    aged,
    aged_directory,
)
from tests.harness.signed_repository import KID, Committed, Ed25519Signer
from tests.harness.worker_services import WatchedStore
from worker.cli_upkeep import expire_command
from worker.commands.cluster_identity import SignerMissing
from worker.commands.expire import ClockDiffers, PlanChanged
from worker.commands.perform import perform
from worker.commands.printed import OUT
from worker.commands.printed_expiry import expiry
from worker.commands.services import Services

pytestmark = pytest.mark.integration

DAYS = 45


@dataclass
class Story:
    """Weekly fulls for 45 days, an incremental branch on the oldest, a young chain, WAL daily."""

    site: AgedRepository
    goes: list[Committed] = field(default_factory=list)
    stays: list[Committed] = field(default_factory=list)

    @property
    def base(self) -> Committed:
        """With which the last 28 days of WAL begin."""
        return self.stays[0]


def told(site: AgedRepository) -> Story:
    old, older = site.full(0), site.full(7)
    first = site.incremental(1, old)
    second = site.incremental(2, first, depth=2)
    stays = [site.full(day) for day in (14, 21, 28, 35, 42)]
    stays += [site.incremental(43, stays[-1])]
    site.archive(range(DAYS))
    return Story(site, [second, first, old, older], stays)


@pytest.fixture(scope="module")
def original() -> Iterator[Story]:
    """Read only: `story` is yours."""
    with TemporaryDirectory(prefix="pgkeep-expire-") as folder:
        yield told(aged_directory(Path(folder), DAYS))


@pytest.fixture
def story(original: Story, tmp_path: Path) -> Story:
    return replace(original, site=original.site.copied(tmp_path / "site"))


@pytest.fixture(params=["directory", "azurite"])
def any_story(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Story]:
    if request.param == "directory":
        yield request.getfixturevalue("story")
        return
    account: EmulatedAccount = request.getfixturevalue("azurite_account")
    store = open_blob_store(account.blob_url, account.credential)
    yield told(aged(store, tmp_path, DAYS))
    store.close()


def names(backups: list[Committed]) -> list[str]:
    return [one.ref.label.text for one in backups]


def test_what_a_dry_run_tells_is_what_a_run_does(any_story: Story) -> None:
    site, before = any_story.site, any_story.site.blobs(*layout.CONTAINERS)
    site.repository.store.create(BlobName("full", "demo-2/20200101T000000Z-F-aaaa/index"), b"x")

    dry = site.expire(dry_run=True)
    assert site.blobs(*layout.CONTAINERS) == before
    done = site.expire(7, plan=dry.report.plan)

    told_alike = dry.report.model_copy(update={"id": done.report.id})
    assert done.report == told_alike
    assert [one.label for one in done.report.went] == names(any_story.goes)
    assert site.labels() == sorted(names(any_story.stays))
    assert site.blobs("wal") == [site.segment(day) for day in range(14, DAYS)]
    gone = {name for name in before if name not in site.blobs(*layout.CONTAINERS)}
    assert {name.container for name in gone} == {"full", "incremental", "wal"}
    assert [info.size for info in site.store.list("full", "demo-2/")] == [1]
    stored = read_report(
        site.store, layout.expiry_report(NAME, done.id), site.repository.pinned
    ).report
    assert stored == done.report


def test_what_stays_is_whole_and_the_window_tells_the_truth(story: Story) -> None:
    site = story.site

    report = site.expire().report

    for one in story.stays:
        verification = verify_header(site.store, one.ref, site.repository.pinned)
        assert verification.findings == (), one.ref.label
    [before], [after] = report.windows_before, report.windows_after
    assert before.started_at == site.origin + timedelta(minutes=1)
    assert after.started_at == site.origin + 14 * DAY + timedelta(minutes=1)
    assert after.started_at <= site.now - 28 * DAY
    assert (after.end, after.last_commit) == (before.end, before.last_commit)
    assert after.backups == tuple(names(story.stays))
    assert site.expire(dry_run=True).report.windows_before == report.windows_after


def test_a_second_run_finds_nothing_and_a_repeated_one_says_the_same(story: Story) -> None:
    site = story.site
    first = site.expire(7)
    blobs = site.blobs(*layout.CONTAINERS)

    assert site.expire(7) == first
    assert site.blobs(*layout.CONTAINERS) == blobs
    again = site.expire(8).report
    assert (again.went, again.wal.files, again.freed_bytes) == ((), 0, 0)


def test_bytes_freed_are_those_that_the_storage_has_no_more(story: Story) -> None:
    site = story.site

    def stored() -> int:
        listed = (site.store.list(one) for one in ("full", "incremental", "wal"))
        return sum(info.size for infos in listed for info in infos)

    before = stored()
    report = site.expire().report

    assert report.freed_bytes == before - stored() > 0
    backups = sum(one.bytes for one in report.went)
    assert backups + report.wal.bytes == report.freed_bytes


def test_a_policy_that_keeps_less_counts_when_it_has_stood_for_days(story: Story) -> None:
    site, kept = story.site, names(story.stays)
    site.expire()
    assert site.labels() == sorted(kept)
    short = Retention(full_days=1, incremental_days=1, wal_days=0.5, keep_last=1)

    site.retention = short
    assert site.expire(dry_run=True).report.settles
    first = site.expire().report
    assert (first.went, first.wal.files, first.settles) == ((), 0, True)

    site.retention = short.model_copy(update={"settle_days": 0})
    went = {*kept} - {kept[4]}
    assert {one.label for one in site.expire(dry_run=True).report.went} == went
    site.retention = short
    site.now += 4 * DAY
    later = site.expire().report
    assert not later.settles
    assert {one.label for one in later.went} == went


def test_a_cap_leaves_the_rest_for_later_runs(tmp_path: Path) -> None:
    retention = Retention(deletions_per_run=1)
    story = told(aged_directory(tmp_path, DAYS, retention=retention))
    site = story.site

    for number, gone in enumerate(story.goes):
        report = site.expire().report
        assert [one.label for one in report.went] == names([gone])
        assert report.postponed == len(story.goes) - number - 1
        later = [one for one in report.staying if one.reasons[0] == "goes in a later run"]
        assert len(later) == report.postponed
    assert site.labels() == sorted(names(story.stays))


def test_t3_forged_and_future_backups_push_nothing_out(story: Story) -> None:
    site = story.site
    for day in (40.1, 41, 44):
        site.full(day, verified=False)
    for day in (DAYS + 10, DAYS + 11):
        site.full(day)

    report = site.expire().report

    assert [one.label for one in report.went] == names(story.goes)
    assert "dated in the future: neither counted nor deleted" in report.staying[-1].reasons


@pytest.mark.parametrize("forged", ["another key", "no signature"])
def test_a_document_that_cannot_be_believed_stops_everything(story: Story, forged: str) -> None:
    site, blobs = story.site, None
    if forged == "another key":
        site.repository.commit(CLUSTER, at=site.now - DAY, signer=Ed25519Signer("stranger"))
    else:
        site.store.create(BlobName("full", "demo/20260101T000000Z-F-aaaa/backup.json"), b"{}")
    blobs = site.blobs("full", "incremental", "wal")

    report = site.expire().report

    assert report.refused is not None
    assert report.refused.startswith("documents cannot be believed, of 2")
    assert site.blobs("full", "incremental", "wal") == blobs
    assert (report.went, report.freed_bytes) == ((), 0)


def test_i4_without_a_verified_full_everything_stays(tmp_path: Path) -> None:
    site = aged_directory(tmp_path, DAYS)
    made = [site.full(day, verified=False) for day in (0, 5, 44)]
    site.archive(range(DAYS))
    blobs = site.blobs("full", "wal")

    assert "no verified full backup" in str(site.expire().report.refused)
    assert site.blobs("full", "wal") == blobs

    site.repository.drill(made[-1], "d1", DrillVerdict.PROVEN)
    assert site.expire().report.went == (), "only unverified ones reach what is promised"
    site.repository.prove(made[1], "late")
    assert [one.label for one in site.expire().report.went] == names(made[:1])


@pytest.mark.parametrize(("verdict", "counts"), [("failed", False), ("inconclusive", True)])
def test_a_failed_drill_outweighs_the_verification(
    tmp_path: Path, verdict: str, *, counts: bool
) -> None:
    site = aged_directory(tmp_path, DAYS, retention=Retention(keep_last=1, wal_days=1))
    fulls = [site.full(day) for day in (0, 5, 43)]
    site.repository.drill(fulls[-1], "d1", DrillVerdict(verdict))

    went = [one.label for one in site.expire().report.went]

    assert went == names(fulls[:2] if counts else fulls[:1])


def test_a_gap_in_the_wal_takes_its_backups_out_of_the_floor(story: Story) -> None:
    site = story.site
    site.store.delete(site.segment(44))
    site.store.delete(site.segment(43))
    site.archive([44])
    site.now += timedelta(minutes=1)
    young = site.expire(dry_run=True).report
    assert young.refused is None, "segments arrive in any order: a hole just now is no gap yet"

    site.now += timedelta(minutes=2)
    blobs = site.blobs("full", "wal")
    assert "continuous WAL" in str(site.expire().report.refused)
    assert site.blobs("full", "wal") == blobs


def test_w08_after_a_promotion_both_timelines_are_kept_without_opening_a_history(
    story: Story,
) -> None:
    site = story.site
    history = BlobName("wal", f"{CLUSTER}/00000002.history")
    told = WalMetadata(KID, "0" * 64, 30).to_blob()
    site.store.create(history, b"sealed under a key that nobody has here", metadata=told)
    promoted = site.full(44, timeline=2)
    site.archive(range(43, DAYS), timeline=2)

    report = site.expire().report

    assert [one.label for one in report.went] == names(story.goes)
    starts = {one.timeline: one.lsn for one in report.wal.before}
    assert starts == {1: Lsn(16 * SEGMENT + 0x28), 2: Lsn(16 * SEGMENT + 0x28)}
    assert site.store.head(history).size > 0
    assert site.segment(43, 2) in site.blobs("wal")
    first, second = report.windows_after
    assert (first.timeline, second.timeline) == (1, 2)
    assert second.backups == (promoted.ref.label.text,)


class TestRemains:
    @pytest.fixture
    def litter(self, story: Story) -> Committed:
        """Parts of an attempt that never got its document."""
        lost = story.site.full(30, verified=False)
        story.site.store.delete(lost.ref.document)
        return lost

    def remains(self, site: AgedRepository, **more: Any) -> dict[str, str]:
        report = site.expire(**more).report
        return {one.object.rpartition("/")[2]: one.verdict for one in report.remains}

    def test_litter_is_listed_while_it_is_young_and_goes_when_it_is_old(
        self, story: Story, litter: Committed
    ) -> None:
        site, label = story.site, litter.ref.label.text

        assert self.remains(site) == {label: "young"}
        assert len(site.infos(litter.ref)) == 3
        site.now += 9 * DAY
        assert self.remains(site, dry_run=True) == {label: "litter"}
        assert len(site.infos(litter.ref)) == 3
        assert self.remains(site) == {label: "litter"}
        assert site.infos(litter.ref) == []
        assert self.remains(site) == {}

    def test_d15_parts_of_a_backup_that_somebody_else_deleted_are_never_touched(
        self, story: Story
    ) -> None:
        site, newest = story.site, story.stays[-2]
        site.store.delete(newest.ref.document)
        site.now += 9 * DAY

        assert self.remains(site) == {newest.ref.label.text: "document-missing"}
        assert len(site.infos(newest.ref)) == 3

    def test_a_false_tombstone_lets_nothing_go(self, story: Story, litter: Committed) -> None:
        site = story.site
        name = layout.tombstone(litter.ref, str(UUID(int=1)))
        site.store.create(name, b'{"format":"pgkeep-tombstone-1"}')

        assert self.remains(site) == {litter.ref.label.text: "young"}
        assert tombstone_of(site.store, litter.ref, site.repository.pinned) is None

    def test_what_is_not_ours_is_told_and_stays(self, story: Story) -> None:
        site = story.site
        strange = [
            BlobName("full", f"{CLUSTER}/notes.txt"),
            BlobName("full", f"{CLUSTER}/{story.goes[-1].ref.label}/notes.txt"),
            BlobName("wal", f"{CLUSTER}/00000001/notes.txt"),
        ]
        for name in strange:
            site.store.create(name, b"?")

        report = site.expire().report

        assert sorted(report.foreign) == sorted(map(str, strange))
        assert report.foreign_count == 3
        assert all(site.store.head(name).size == 1 for name in strange)


class TestWorm:
    def worm(self, story: Story, **rules: Any) -> WormStore:
        return WormStore(story.site.store, clock=lambda: story.site.now, **rules)

    def test_what_the_storage_keeps_is_not_yet_and_no_failure(self, story: Story) -> None:
        site, before = story.site, story.site.blobs("full", "incremental", "wal")

        report = site.expire(store=self.worm(story, days=14)).report

        assert report.refused is None
        assert (report.went, report.freed_bytes) == ((), 0)
        assert site.blobs("full", "incremental", "wal") == before
        kept = {one.object: one.blobs for one in report.not_yet}
        assert kept.pop("WAL") == 10  # 14 days, but of four a backup that stays needs its own
        # Of a chain the newest is tried: what it builds on stays as long as it does.
        assert set(kept) == {str(story.goes[at].ref.document) for at in (0, 3)}
        site.now += 15 * DAY
        later = site.expire(store=self.worm(story, days=14)).report
        assert {one.label for one in later.went} >= set(names(story.goes))
        assert later.not_yet == ()

    def test_a_child_under_legal_hold_keeps_its_chain_and_its_wal(self, story: Story) -> None:
        site, held = story.site, story.goes[0]
        hold_on = f"incremental/{CLUSTER}/{held.ref.label}/"

        report = site.expire(store=self.worm(story, holds=(hold_on,))).report

        assert [one.label for one in report.went] == names(story.goes[3:])
        assert set(site.labels()) == {*names(story.stays), *names(story.goes[:3])}
        assert site.blobs("wal") == [site.segment(day) for day in (0, 1, 2, *range(14, DAYS))]
        for one in story.goes[:3]:
            assert verify_header(site.store, one.ref, site.repository.pinned).findings == ()

    def test_parts_that_stay_behind_go_as_soon_as_they_may(self, story: Story) -> None:
        site, old = story.site, story.goes[3]
        part = str(old.ref.blob("index"))

        first = site.expire(store=self.worm(story, holds=(part,))).report
        left = {one.label: one.left for one in first.went}
        assert left[old.ref.label.text] == 1
        assert [str(info.name) for info in site.infos(old.ref)] == [part]

        assert [one.verdict for one in site.expire().report.remains] == ["expired"]
        assert site.infos(old.ref) == []


@pytest.mark.parametrize("lost", ["volume", "key record", "short volume"])
def test_i4_a_backup_that_was_robbed_since_its_verification_is_no_floor(
    tmp_path: Path, lost: str
) -> None:
    site = aged_directory(tmp_path, DAYS, retention=Retention(keep_last=1, wal_days=1))
    site.store.create(layout.key_record(NAME, "k" + "b" * 26), b"{}")
    sound, robbed = site.full(0), site.full(43, kid="k" + "b" * 26)
    site.archive(range(DAYS))
    volume = robbed.ref.blob("base.pgdata.0000")
    site.store.delete(layout.key_record(NAME, "k" + "b" * 26) if lost == "key record" else volume)
    if lost == "short volume":
        site.store.create(volume, b"short")

    report = site.expire().report

    assert report.went == ()
    assert {one.label: one.state for one in report.staying} == {
        sound.ref.label.text: "verified",
        robbed.ref.label.text: "incomplete",
    }
    assert report.windows_after[0].backups == (sound.ref.label.text,)


def test_s05_a_clock_that_differs_from_the_storages_deletes_nothing(story: Story) -> None:
    site = story.site
    leases = FileLeases(site.folder / "leases", lambda: site.now - 30 * DAY)

    with pytest.raises(ClockDiffers, match="in the storage"):
        site.expire(leases=leases)
    assert len(site.labels()) == 10
    slightly = FileLeases(site.folder / "leases", lambda: site.now - timedelta(minutes=2))
    assert site.expire(leases=slightly).report.went


def test_a_hold_with_a_typing_error_lets_nothing_go(tmp_path: Path) -> None:
    site = told(aged_directory(tmp_path, DAYS)).site
    before = site.labels()
    site.retention = Retention(hold=(before[0][:-4] + "zzzz",))

    report = site.expire().report

    assert report.refused == f"the settings hold what is not there: {before[0][:-4]}zzzz"
    assert site.labels() == before


def test_w08_the_backup_before_a_fork_stays_while_the_living_branch_needs_it(
    tmp_path: Path,
) -> None:
    site = aged_directory(tmp_path, DAYS, retention=Retention(wal_days=3, full_days=3))
    old, before, left = site.full(0), site.full(30), site.full(36)
    site.archive(range(38))
    site.archive(range(34, DAYS), timeline=2)
    promoted = [site.full(day, timeline=2) for day in (43, 44)]

    went = [one.label for one in site.expire().report.went]

    assert went == names([old])
    assert set(site.labels()) == set(names([before, left, *promoted]))
    assert site.segment(34, 2) in site.blobs("wal")


def test_a_running_backup_excludes_expiry(story: Story) -> None:
    site = story.site
    services = site.services()
    with hold(services.leases, layout.lock(NAME, "backup").path, "a backup"):
        with pytest.raises(LeaseHeld, match="a backup"):
            site.expire()
        assert site.expire(dry_run=True).report.refused is None
    assert len(site.labels()) == 10


def test_without_a_signer_only_a_dry_run_works(story: Story) -> None:
    assert story.site.expire(dry_run=True, signer=None).report.went
    with pytest.raises(SignerMissing):
        story.site.expire(signer=None)
    assert len(story.site.labels()) == 10


@dataclass
class ChangingStore(WatchedStore):
    """Something happens to the repository after so many listings of backups."""

    happens: Callable[[], object] = lambda: None
    looks: int = 1

    def list(self, container: str, prefix: str = "", **more: Any) -> Any:
        found = list(super().list(container, prefix, **more))
        if container == "incremental":
            self.looks -= 1
            if self.looks == 0:
                self.happens()
        return iter(found)


def test_a_repository_that_changes_meanwhile_is_left_alone(story: Story) -> None:
    site, blobs = story.site, None

    def add_a_parent_to_keep() -> None:
        site.incremental(44, story.goes[2])

    store = ChangingStore(site.store, happens=add_a_parent_to_keep)
    with pytest.raises(PlanChanged, match="that of the first look was"):
        site.expire(store=store)
    blobs = site.labels()
    assert set(blobs) >= set(names([*story.goes, *story.stays]))
    assert [one.label for one in site.expire().report.went] == names(
        [story.goes[0], story.goes[1], story.goes[3]]
    )


def test_a_plan_of_yesterday_is_carried_out_only_if_it_is_the_same(story: Story) -> None:
    site = story.site
    plan = site.expire(dry_run=True).report.plan
    site.now += 8 * DAY

    with pytest.raises(PlanChanged, match="that of the dry run was"):
        site.expire(plan=plan)
    assert len(site.labels()) == 10


def test_a_job_of_the_queue_is_done_once(story: Story) -> None:
    job = ExpireJob(job_id=UUID(int=9, version=4), cluster=CLUSTER)

    report = perform(story.site.services(), job)
    blobs = story.site.blobs(*layout.CONTAINERS)

    assert report == str(job.job_id)
    assert perform(story.site.services(), job) == report
    assert story.site.blobs(*layout.CONTAINERS) == blobs


class TestPrinted:
    def test_a_dry_run_says_what_goes_why_and_what_can_be_restored_then(
        self, story: Story, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(OUT, "width", 200)
        site = story.site
        expiry(site.expire(dry_run=True), as_json=False)

        said = capsys.readouterr().out
        lines = {label: line for line in said.splitlines() for label in labels_in(line)}
        assert "dry run, nothing is deleted" in said
        for one in story.goes:
            assert "│ goes " in lines[one.ref.label.text]
        base = lines[story.base.ref.label.text]
        assert "│ stays │" in base
        assert "the last 28 days of WAL begin with it" in base
        assert "4 of 10 backups and 14 files of WAL would be deleted" in said
        was, then = (site.origin + days * DAY + timedelta(minutes=1) for days in (0, 14))
        assert f"The oldest that can be restored: {then:%F %TZ}, until now {was:%F %TZ}." in said
        plan = said.rpartition("--plan ")[2].strip()
        assert site.expire(plan=plan).report.plan == plan

    def test_a_refusal_and_everything_strange_is_told(
        self, story: Story, capsys: pytest.CaptureFixture[str]
    ) -> None:
        site = story.site
        site.store.create(BlobName("full", f"{CLUSTER}/notes.txt"), b"?")
        site.store.delete(story.stays[1].ref.document)
        worm = WormStore(site.store, holds=("wal/",), clock=lambda: site.now)
        expiry(site.expire(store=worm), as_json=False)
        site.repository.commit(CLUSTER, at=site.now - DAY, signer=Ed25519Signer("stranger"))
        expiry(site.expire(), as_json=False)

        said = capsys.readouterr().out
        assert "not pgkeep's, never touched: full/demo/notes.txt" in said
        assert "its document is GONE" in said
        assert "not yet: WAL, 14 blobs: wal/demo/00000001/" in said
        assert "REFUSED, nothing is deleted: documents cannot be believed" in said
        assert "Nothing that can be restored is lost." in said

    def test_json_is_the_report(self, story: Story, capsys: pytest.CaptureFixture[str]) -> None:
        outcome = story.site.expire(dry_run=True)
        expiry(outcome, as_json=True)

        said = json.loads(capsys.readouterr().out)
        assert said.pop("dry_run") is True
        assert ExpiryReport.model_validate(said) == outcome.report


def labels_in(line: str) -> list[str]:
    return re.findall(r"\d{8}T\d{6}Z-[FI]-[a-z2-7]{4}", line)


def test_the_command_ends_with_three_when_it_is_refused(
    story: Story, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def opened(_config: object, *, quiet: bool) -> Iterator[Services]:
        assert quiet
        yield story.site.services()

    monkeypatch.setattr("worker.cli_upkeep.open_services", opened)
    expire_command(CLUSTER, dry_run=True, json=True)
    story.site.repository.commit(CLUSTER, at=story.site.now - DAY, signer=Ed25519Signer("stranger"))
    with pytest.raises(typer.Exit) as ended:
        expire_command(CLUSTER, json=True)

    assert ended.value.exit_code == 3
    went, none = (json.loads(line)["went"] for line in capsys.readouterr().out.splitlines())
    assert (len(went), none) == (4, [])
