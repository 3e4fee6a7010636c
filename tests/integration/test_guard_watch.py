"""The guard at work: a real catalogue, a repository, and an account whose policies change."""

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from functions.guard_watch import guard_backup, threats, watch_guard
from functions.intake import take_in_backup
from functions.wiring import Services
from local.account_policies import lift_lifecycle_rule, plant_lifecycle_rule, write_policies
from shared import adapters
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.domain.cluster import ClusterName, cluster_name
from shared.domain.findings import REPOSITORY
from shared.domain.lifecycle_rules import PolicySnapshot
from shared.domain.needed_until import GuardedBackup
from shared.errors import CatalogueUnavailable, StorageUnavailable
from shared.jobs.messages import RESTORE_QUEUE
from shared.repository import layout
from shared.repository.account_policies import PolicyReader
from shared.repository.blob_store import BlobInfo
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.recorded_account_policies import RecordedAccountPolicies
from shared.settings import AzureRepository, ClusterSettings, RecordedAccount
from tests.harness.catalogue_server import CatalogueServer, running_catalogue_server
from tests.harness.control_plane import ControlPlane
from tests.harness.memory_queue import MemoryQueue
from tests.harness.signed_repository import NOON, Committed, SignedRepository
from tests.harness.worker_services import WatchedStore

pytestmark = pytest.mark.integration

DEMO = cluster_name("demo")
HOUR = timedelta(hours=1)
PARENT, BACKUP = "lifecycle-would-delete-parent", "lifecycle-would-delete-backup"


@dataclass
class TieredStore(WatchedStore):
    """A directory whose blobs below some prefixes are in Azure's archive tier."""

    archived: tuple[str, ...] = ()
    broken: bool = False

    def list(
        self, container: str, prefix: str = "", *, start: str = "", page: int | None = None
    ) -> Iterator[BlobInfo]:
        if self.broken:
            raise StorageUnavailable("listing failed")
        for blob in super().list(container, prefix, start=start, page=page):
            cold = self.archived and str(blob.name).startswith(self.archived)
            yield replace(blob, tier="Archive" if cold else "Hot")


@dataclass
class Post:
    """The guard's post in a test: the control plane, the account's policies, what was logged."""

    plane: ControlPlane
    store: TieredStore
    policies: Path
    log: pytest.LogCaptureFixture
    server: CatalogueServer

    @property
    def services(self) -> Services:
        return self.plane.services

    def commit(self, days_ago: float, parent: Committed | None = None) -> Committed:
        """A backup of `demo`, taken in by its event."""
        link: dict[str, Any] = {} if parent is None else {"parent": parent.link}
        at = NOON - timedelta(days=days_ago)
        backup = self.plane.repository.commit(at=at, **link)
        take_in_backup(self.services, backup.ref.document)
        return backup

    def open(self, cluster: ClusterName = DEMO) -> list[str]:
        return sorted(one.finding.code for one in self.plane.catalogue.findings(cluster))

    def evidence(self) -> dict[str, str]:
        [one] = self.plane.catalogue.findings(DEMO)
        return dict(one.finding.evidence)

    def plant(self, *prefixes: str, days: float, name: str = "save-money") -> None:
        plant_lifecycle_rule(self.policies, name, prefixes=list(prefixes), delete_after_days=days)

    def change(self, change: Callable[[dict[str, Any]], None]) -> None:
        recording = json.loads(self.policies.read_text("utf-8"))
        change(recording)
        self.policies.write_text(json.dumps(recording), "utf-8")

    def told(self, event: str) -> list[str]:
        fields = [record.fields for record in self.log.records if record.message == event]  # type: ignore[attr-defined]
        return [str(one["code"]) for one in fields]


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with running_catalogue_server() as running:
        yield running


@pytest.fixture
def post(server: CatalogueServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Post:
    directory = DirectoryBlobStore(tmp_path / "repository")
    for container in layout.CONTAINERS:
        directory.create_container(container)
    store = TieredStore(directory)
    repository = SignedRepository(store)
    repository.register()
    policies = tmp_path / "account-policies.json"
    write_policies(policies)
    caplog.set_level(logging.INFO, "pgkeep")
    plane = ControlPlane(
        repository, PostgresCatalogue(server.database()), {RESTORE_QUEUE: MemoryQueue()}
    )
    account = RecordedAccount(type="recorded", path=policies)
    plane.policies = adapters.account_policies(account, plane.clock)
    return Post(plane, store, policies, caplog, server)


def in_development(services: Services) -> Services:
    settings = services.settings.model_copy(update={"profile": "development"})
    return replace(services, settings=settings)


def test_the_policies_that_a_stack_begins_with_are_in_order(post: Post) -> None:
    post.commit(1, post.commit(2))
    watch_guard(in_development(post.services))
    assert (post.open(), post.open(REPOSITORY)) == ([], [])
    assert post.told("finding-opened") == []


def test_a_planted_rule_is_caught_by_the_next_commit_and_closed_when_it_is_gone(
    post: Post,
) -> None:
    base = post.commit(3)
    post.plant("full/", days=4)
    assert post.open() == []  # one backup falls, but nobody has looked since

    child = post.commit(1, base)
    assert post.open() == [PARENT]
    assert post.evidence() == {
        "rule": "save-money",
        "container": "full",
        "from": "2026-11-23",
        "needed_until": "2026-12-17",
        "labels": f"{base.ref.label}, {child.ref.label}",
        "versioning": "on",
        "soft_delete_days": "14",
        "unlocked_immutability_days": "35",
    }
    [threat] = threats(post.services, post.services.settings.cluster[0])
    assert (threat.rule.name, threat.need.carries) == (
        "save-money",
        (base.ref.label, child.ref.label),
    )

    watch_guard(in_development(post.services))
    post.commit(0.5, child)
    assert post.told("finding-opened") == [PARENT]  # once, however often it is seen

    lift_lifecycle_rule(post.policies, "save-money")
    post.commit(0.4, child)
    assert post.open() == [PARENT]  # an event opens, and closes nothing
    watch_guard(in_development(post.services))
    assert post.open() == []
    assert post.told("finding-closed") == [PARENT]


def test_the_hourly_look_finds_a_rule_without_any_event(post: Post) -> None:
    post.commit(3)
    post.plant("full/demo/", "incremental/", days=9)
    watch_guard(in_development(post.services))
    assert post.open() == [BACKUP]


def test_a_rule_about_other_blobs_is_nobodys_business(post: Post) -> None:
    post.commit(3)
    post.plant("full/demo2/", "state/", "logs", days=0)
    watch_guard(in_development(post.services))
    assert post.open() == []


def test_an_account_without_immutability_is_found_once_for_all_clusters(post: Post) -> None:
    def weaken(recording: dict[str, Any]) -> None:
        full, incremental, wal, _ = recording["containers"]
        full["properties"] = {}
        incremental["properties"]["immutabilityPolicy"]["properties"] = {
            "immutabilityPeriodSinceCreationInDays": 3,
            "state": "Locked",
        }
        recording["containers"] = [full, incremental, wal]

    post.change(weaken)
    watch_guard(post.services)
    found = {
        (one.finding.code.value, one.finding.object)
        for one in post.plane.catalogue.findings(REPOSITORY)
    }
    assert found == {
        ("policy-missing", "full"),
        ("immutability-shorter-than-retention", "incremental"),
        ("policy-missing", "wal"),  # not locked, and this is production
        ("policy-missing", "evidence"),
    }

    write_policies(post.policies)
    watch_guard(in_development(post.services))
    assert post.open(REPOSITORY) == []


def test_blobs_in_the_archive_tier_are_found_by_event_and_by_look(post: Post) -> None:
    post.store.archived = ("full/demo/20261120",)
    base = post.commit(2)
    assert post.open() == ["tiered-too-early"]
    assert post.evidence() == {
        "labels": base.ref.label.text,
        "blobs": "4",
        "rehydration_hours": "15",
    }
    post.commit(1, base)
    watch_guard(in_development(post.services))
    assert post.open() == ["tiered-too-early"]

    post.store.archived = ()
    watch_guard(in_development(post.services))
    assert post.open() == []


class TestBlindness:
    def test_policies_that_cannot_be_read_never_hold_up_a_backup(self, post: Post) -> None:
        post.plant("full/", days=1)
        post.commit(3)
        post.policies.unlink()

        backup = post.commit(2)
        watch_guard(post.services)
        assert post.plane.catalogue.backup(backup.ref).ref == backup.ref
        assert len(post.plane.take_jobs(RESTORE_QUEUE)) == 2
        assert post.open(REPOSITORY) == ["guard-blind"]
        assert post.open() == [BACKUP]  # nobody knows that it is over
        assert post.told("finding-opened") == [BACKUP, "guard-blind"]

        write_policies(post.policies)
        watch_guard(in_development(post.services))
        assert (post.open(), post.open(REPOSITORY)) == ([], [])

    def test_without_a_section_account_only_azure_is_unguarded(self, post: Post) -> None:
        post.plane.policies = None
        services = post.services
        watch_guard(services)
        assert post.open(REPOSITORY) == []

        azure = AzureRepository(account_url="https://pgkeepdata.blob.core.windows.net")
        settings = services.settings.model_copy(update={"repository": azure})
        for _ in range(2):
            watch_guard(replace(services, settings=settings))
        assert post.told("finding-opened") == ["guard-blind"]
        assert threats(services, services.settings.cluster[0]) == ()

    def test_trouble_with_storage_or_catalogue_is_told_and_not_raised(self, post: Post) -> None:
        backup = post.commit(1)
        post.store.broken = True
        guard_backup(post.services, backup.ref)
        post.store.broken = False
        down = PostgresCatalogue("host=127.0.0.1 port=1 dbname=x")
        guard_backup(replace(post.services, catalogue=down), backup.ref)
        assert post.told("guard-failed") == [
            StorageUnavailable.code,
            CatalogueUnavailable.code,
        ]


def test_a_look_reads_policies_once_and_asks_only_for_clusters_that_a_rule_can_touch(
    post: Post,
) -> None:
    """Ten thousand clusters shall cost one reading, and otherwise what is worth looking at."""
    asked: list[str] = []
    readings: list[datetime] = []

    class Counted(PostgresCatalogue):
        def guarded_backups(
            self, clusters: Collection[ClusterName]
        ) -> Mapping[ClusterName, Sequence[GuardedBackup]]:
            asked.extend(clusters)
            return super().guarded_backups(clusters)

    class Reader(PolicyReader):
        def read(self) -> PolicySnapshot:
            readings.append(NOON)
            return super().read()

    services = in_development(post.services)
    fleet = tuple(ClusterSettings(name=f"c{n:05}", dsn="host=nowhere") for n in range(10_000))
    services = replace(
        services,
        settings=services.settings.model_copy(update={"cluster": fleet}),
        catalogue=Counted(post.server.database()),
        policies=Reader(RecordedAccountPolicies(post.policies), lambda: NOON, fresh_for=HOUR),
    )
    lift_lifecycle_rule(post.policies, "far-backstop")
    post.plant("wal/c00042/", "full/c0999", days=3)
    watch_guard(services)
    assert len(readings) == 1
    assert asked == ["c00042", *(f"c{n:05}" for n in range(9990, 10_000))]
    found = services.catalogue.findings()
    assert [(one.cluster, one.finding.code) for one in found] == [("c00042", BACKUP)]
