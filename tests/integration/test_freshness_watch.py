"""The watch over promises: each broken one is told once, and is gone when it is kept again."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from functions.freshness_watch import watch_fleet
from functions.intake import take_in_backup, take_in_report
from functions.timer_freshness import look_at_all
from functions.wiring import Services
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.domain.cluster import cluster_name
from shared.domain.drill import DrillVerdict
from shared.domain.finding_rules import FindingCode, FindingScope
from shared.domain.findings import REPOSITORY, Finding
from shared.domain.freshness import WalFreshness
from shared.domain.lsn import Lsn
from shared.errors import StorageUnavailable
from shared.repository import layout
from shared.repository.blob_store import BlobInfo
from shared.repository.signatures import sign_document
from shared.settings import ClusterSettings, Schedule
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.control_plane import ControlPlane
from tests.harness.light_plane import light_plane
from tests.harness.signed_repository import NOON, Committed, drill_report
from tests.harness.worker_services import WatchedStore

pytestmark = pytest.mark.integration

DEMO, IDLE = cluster_name("demo"), cluster_name("idle")
NIGHTLY = {"full": "0 2 * * *", "drill_quick": "30 3 * * 0"}
OFF = dict.fromkeys(Schedule.model_fields, False)
GB = 10**9


@dataclass
class Watched:
    """One cluster that is backed up each night and drilled each week, and one that never is."""

    plane: ControlPlane
    log: pytest.LogCaptureFixture
    sections: Mapping[str, Mapping[str, Any]]
    budget: int | None = None

    @property
    def services(self) -> Services:
        made = self.plane.services
        demo = ClusterSettings(
            name="demo", dsn="host=nowhere", schedule={**OFF, **NIGHTLY}, **self.sections
        )
        idle = ClusterSettings(name="idle", dsn="host=nowhere", schedule=OFF)
        fleet = made.settings.fleet.model_copy(update={"budget_bytes": self.budget})
        changes = {"cluster": (demo, idle), "fleet": fleet}
        return replace(made, settings=made.settings.model_copy(update=changes))

    def open(self, **later: float) -> list[str]:
        """What is open of the scope, after a look `later`."""
        self.plane.clock.advance(**later)
        watch_fleet(self.services)
        return [one.code.value for one in self.findings()]

    def findings(self) -> list[Finding]:
        found = (one.finding for one in self.plane.catalogue.findings())
        ours = [one for one in found if one.scope is FindingScope.FRESHNESS]
        return sorted(ours, key=lambda one: one.key)

    def told(self, event: str) -> list[str]:
        fields = [record.fields for record in self.log.records if record.message == event]  # type: ignore[attr-defined]
        return sorted(str(one["code"]) for one in fields)

    def commit(self) -> Committed:
        made = self.plane.repository.commit(at=self.plane.clock.now)
        take_in_backup(self.services, made.ref.document)
        return made

    def verify(self, backup: Committed, number: str = "v1") -> None:
        at = self.plane.clock.now
        take_in_report(self.services, self.plane.repository.verify(backup, number, created_at=at))

    def drill(self, backup: Committed, number: str, **changes: Any) -> None:
        made = drill_report(backup, number, DrillVerdict.PROVEN)
        report = made.model_copy(update={"created_at": self.plane.clock.now, **changes})
        name = layout.drill_report(DEMO, number)
        repository = self.plane.repository
        repository.store.create(name, sign_document(report, repository.signer))
        take_in_report(self.services, name)


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def watched(
    server: CatalogueServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Callable[..., Watched]:
    caplog.set_level("INFO", "pgkeep")

    def make(budget: int | None = None, **sections: Mapping[str, Any]) -> Watched:
        return Watched(light_plane(server, tmp_path), caplog, sections, budget)

    return make


def test_ages_are_told_once_and_are_gone_when_a_newer_one_has_come(
    watched: Callable[..., Watched],
) -> None:
    site = watched()
    assert site.open() == []
    assert site.open(hours=26) == []
    assert site.open(minutes=1) == ["backup-overdue", "verification-overdue"]
    assert site.open(hours=3) == ["backup-overdue", "verification-overdue"]
    backup = site.commit()
    assert site.open() == ["verification-overdue"]
    site.verify(backup)
    assert site.open(minutes=5) == []
    assert site.open(days=7) == ["backup-overdue", "proof-overdue", "verification-overdue"]
    site.drill(backup, "d1")
    assert site.open() == ["backup-overdue", "verification-overdue"]

    once = ["backup-overdue", "verification-overdue"]
    assert site.told("finding-opened") == sorted([*once, *once, "proof-overdue"])
    assert site.told("finding-closed") == sorted([*once, "proof-overdue"])
    assert {one.cluster for one in site.plane.catalogue.findings()} == {DEMO}


def test_what_is_overdue_says_since_when_and_what_was_promised(
    watched: Callable[..., Watched],
) -> None:
    site = watched(objectives={"committed_hours": 30, "verified_hours": 2})
    site.open()
    site.commit()
    site.open(days=2)
    backup, verification = site.findings()
    assert backup.since == NOON + timedelta(minutes=2, hours=30)
    # Nightly backups cannot be two hours old at most.
    assert verification.evidence["promised_hours"] == "26.0"
    assert verification.since == NOON + timedelta(hours=26)


def test_a_cluster_that_the_settings_no_longer_name_is_promised_nothing(
    watched: Callable[..., Watched],
) -> None:
    site = watched()
    site.open()
    assert site.open(days=2) != []
    gone = replace(site.services, settings=site.plane.services.settings.model_copy(
        update={"cluster": ()}
    ))  # fmt: skip
    watch_fleet(gone)
    assert site.findings() == []


def test_commits_at_risk_break_the_recovery_point_objective_until_they_are_archived(
    watched: Callable[..., Watched],
) -> None:
    site = watched()

    def seen(at: datetime) -> WalFreshness:
        return WalFreshness("demo", at, NOON, through_lsn=Lsn(1), protected_at=at)

    site.plane.catalogue.record_freshness(seen(NOON))
    assert site.open(seconds=300) == []
    assert site.open(seconds=1) == ["rpo-broken"]
    site.plane.catalogue.record_freshness(seen(site.plane.clock.now))
    assert site.open(seconds=5) == []
    assert (site.told("finding-opened"), site.told("finding-closed")) == (
        ["rpo-broken"],
        ["rpo-broken"],
    )


def test_recovery_time_is_told_as_measured_and_as_predicted_with_rehydration(
    watched: Callable[..., Watched],
) -> None:
    site = watched()
    small = site.commit()
    site.verify(small)
    fast = {"fetch_apply": 100_000, "replay": 1000, "plan": 1000}
    site.drill(small, "d1", restored_bytes=GB, replayed_bytes=GB, phases_ms=fast, rto_ms=102_000)
    assert site.open() == []

    # The guard says that something lies in the archive tier: it has to be thawed first.
    catalogue = site.plane.catalogue
    wait = {"rehydration_hours": "15"}
    frozen = Finding(FindingCode.TIERED_TOO_EARLY, "full", NOON, "in the archive tier", wait)
    catalogue.open_findings(DEMO, [frozen], NOON)
    assert site.open(minutes=1) == ["rto-broken"]
    [predicted] = site.findings()
    assert predicted.object == "predicted"
    assert "900.0 min of it until archived blobs can be read" in predicted.fact
    catalogue.settle_findings(DEMO, [FindingScope.GUARD], [], site.plane.clock.now)
    assert site.open(minutes=1) == []

    site.drill(small, "d2", phases_ms=fast, rto_ms=5 * 3600 * 1000)
    assert site.open() == ["rto-broken"]
    assert site.findings()[0].fact == "the last drill took 300.0 min, promised are 240.0 min"


def test_budgets_are_watched_for_each_cluster_and_for_the_fleet(
    watched: Callable[..., Watched],
) -> None:
    site = watched(budget=200, storage={"budget_bytes": 150, "warn_ratio": 0.5})
    for _ in range(3):
        site.verify(site.commit(), f"v{site.plane.clock.now.day}")
        assert "storage-nearly-full" not in site.open()[1:]
        site.plane.clock.advance(days=1)
    # Three times 43 bytes: 86 % of the cluster's budget, 65 % of the fleet's.
    [cluster] = site.findings()
    assert cluster.fact.startswith("86% of the budget is used")
    assert cluster.evidence["growth_bytes_per_day"] == "43"
    assert cluster.evidence["days_to_full"] == "0.5"

    site.commit()
    assert site.open() == ["storage-nearly-full", "storage-nearly-full"]
    assert {one.cluster for one in site.plane.catalogue.findings()} == {DEMO, REPOSITORY}
    site.sections, site.budget = {}, None
    assert site.open() == []


def test_one_trouble_does_not_hide_the_others(watched: Callable[..., Watched]) -> None:
    @dataclass
    class Broken(WatchedStore):
        def list(self, *_: Any, **__: Any) -> Iterator[BlobInfo]:
            raise StorageUnavailable("listing failed")

    site = watched()
    site.open()
    site.plane.clock.advance(days=2)
    broken = replace(site.services, store=Broken(site.plane.repository.store))
    look_at_all(broken)
    assert [one.code.value for one in site.findings()] == ["backup-overdue", "verification-overdue"]
    down = replace(broken, catalogue=PostgresCatalogue("host=127.0.0.1 port=1 dbname=x"))
    with pytest.raises(Exception, match="connect"):
        look_at_all(down)


def test_s09_when_archives_take_too_long_the_promises_are_looked_at_all_the_same(
    watched: Callable[..., Watched],
) -> None:
    site = watched()
    site.open()
    site.plane.clock.advance(days=2)

    def hurried() -> datetime:
        site.plane.clock.advance(minutes=5)
        return site.plane.clock.now

    look_at_all(replace(site.services, clock=hurried))

    assert "freshness-cut-short" in site.log.messages
    assert site.plane.catalogue.freshness(DEMO) is None
    assert "backup-overdue" in [one.code.value for one in site.findings()]
