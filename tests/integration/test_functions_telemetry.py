"""What the function app tells of itself and of the fleet, by what really ran: a catalogue, a
repository, its own timers and triggers; only where it goes stays in memory.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import azure.functions as func
import pytest

from functions.freshness_watch import watch_fleet
from functions.http_findings import OPERATIONS
from functions.intake import take_in_backup, take_in_report
from functions.looks import look
from functions.operations import serve
from functions.queue_job_event import take_in_event
from functions.silent_jobs import LOST_AFTER
from functions.timer_dispatch import dispatch
from functions.timer_freshness import look_at_all
from functions.wiring import HostLines, Services
from shared.domain.drill import DrillVerdict
from shared.domain.finding_rules import RULES
from shared.domain.freshness import WalFreshness
from shared.domain.job import JobEventKind, JobVerb
from shared.domain.lsn import Lsn
from shared.domain.replication import GeoReplication, ReplicationState
from shared.errors import CatalogueUnavailable
from shared.event_log import LOGGER, log_event
from shared.jobs.messages import BACKUP_QUEUE, AnyJob, JobEvent
from shared.repository import layout
from shared.repository.signatures import sign_document
from shared.telemetry import metric_names as names
from shared.telemetry.metric_names import METRICS
from tests.harness.catalogue_server import running_catalogue_server
from tests.harness.control_plane import ControlPlane
from tests.harness.ingestion_stub import ingestion
from tests.harness.light_plane import light_plane
from tests.harness.recorded_telemetry import Recorded, recorded_telemetry
from tests.harness.signed_repository import NOON, Committed, drill_report

pytestmark = pytest.mark.integration

GB = 10**9


@dataclass
class Synced:
    """A second region that is some minutes behind."""

    reached: datetime

    def read(self) -> GeoReplication:
        return GeoReplication(ReplicationState.LIVE, self.reached)


@dataclass
class Site:
    plane: ControlPlane
    recorded: Recorded

    @property
    def services(self) -> Services:
        made = self.plane.services
        fleet = made.settings.fleet.model_copy(update={"budget_bytes": 4 * GB})
        settings = made.settings.model_copy(update={"fleet": fleet})
        return replace(made, settings=settings, telemetry=self.recorded.telemetry)

    def later(self, **step: float) -> "Site":
        self.plane.clock.advance(**step)
        return self


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A backup, verified and drilled, with WAL, and a second region: everything has a value."""
    with running_catalogue_server() as server:
        plane = light_plane(server, tmp_path_factory.mktemp("plane"))
        plane.replication = Synced(NOON + timedelta(minutes=50))
        made = Site(plane, recorded_telemetry())
        _fill(made, plane.repository.commit(at=NOON))
        yield made


def _fill(site: Site, backup: Committed) -> None:
    repository, services = site.plane.repository, site.services
    take_in_backup(services, backup.ref.document)
    take_in_report(services, repository.verify(backup, "v1", created_at=NOON))
    fast = {"fetch_apply": 100_000, "replay": 1000, "plan": 1000}
    changes = {"created_at": NOON, "rto_ms": 102_000, "phases_ms": fast}
    report = drill_report(backup, "d1", DrillVerdict.PROVEN).model_copy(
        update={**changes, "restored_bytes": GB, "replayed_bytes": GB}
    )
    name = layout.drill_report(backup.ref.cluster, "d1")
    repository.store.create(name, sign_document(report, repository.signer))
    take_in_report(services, name)


def job_of(site: Site) -> AnyJob:
    [job] = site.plane.take_jobs(BACKUP_QUEUE)
    return job


def event_of(job: AnyJob, kind: JobEventKind, at: datetime, *, succeeded: bool | None) -> JobEvent:
    return JobEvent(
        job_id=job.job_id,
        cluster=job.cluster,
        verb=JobVerb.BACKUP,
        kind=kind,
        attempt=1,
        at=at,
        succeeded=succeeded,
        traceparent=job.traceparent,
    )


def test_a_look_at_the_fleet_sets_every_gauge_once_and_counts_what_is_open(site: Site) -> None:
    with look(site.later(hours=1).services, "freshness"):
        look_at_all(site.services)
    # No WAL lies in this archive; what a look would know of one that does:
    known = WalFreshness(
        "demo", site.plane.clock(), NOON, through_lsn=Lsn(1), protected_at=NOON, unarchived_bytes=5
    )
    site.plane.catalogue.record_freshness(known)
    watch_fleet(site.services)
    recorded = site.recorded
    recorded.assert_that_it_is_as_the_table_says("functions")
    seen = recorded.metrics()
    gauges = {rule.name for rule in METRICS.values() if rule.emitted_by == "functions"}
    assert {name for name in gauges if METRICS[name].kind == "gauge"} <= seen.keys()
    ages = {str(point.attributes["fact"]): point.value for point in seen[names.BACKUP_AGE]}
    # The backup took two minutes; it is not known to be whole in the second region.
    assert ages == {"committed": 3480, "verified": 3480, "proven": 3600}
    assert {p.attributes["kind"]: p.value for p in seen[names.RTO]}["measured"] == 102
    assert [point.value for point in seen[names.GEO_LAG]] == [600]
    assert [point.value for point in seen[names.WAL_UNARCHIVED]] == [5]
    assert [point.value for point in seen[names.WAL_LAG]] == [3600]
    assert [point.value for point in seen[names.RPO]] == [3600]
    used = {p.attributes["cluster"]: p.value for p in seen[names.STORAGE_USED]}
    assert used["demo"] == used["_repository"] > 0
    [ratio] = seen[names.STORAGE_USED_RATIO]
    assert ratio.value == used["_repository"] / (4 * GB)
    by_code = {str(p.attributes["code"]): p.value for p in seen[names.FINDINGS]}
    assert by_code.keys() == {code.value for code in RULES}
    opened = {one.finding.code.value for one in site.plane.catalogue.findings()}
    assert {code for code, count in by_code.items() if count} <= opened
    assert recorded.values(names.LOOKS)["ok", "freshness"] == 1


def test_a_job_is_one_trace_from_the_tick_to_its_last_event_and_counted_once(site: Site) -> None:
    services = site.later(hours=20).services
    with look(services, "dispatch"):
        dispatch(services)
    job = job_of(site)
    assert job.traceparent is not None
    for kind, succeeded in ((JobEventKind.STARTED, None), (JobEventKind.FINISHED, True)):
        event = event_of(job, kind, site.plane.clock(), succeeded=succeeded)
        take_in_event(services, event.model_dump_json().encode())
    [tick] = site.recorded.spans("timer dispatch")
    events = site.recorded.spans("take in event")
    assert len(events) == 2
    assert tick.context is not None
    traces = {span.context.trace_id for span in [tick, *events] if span.context}
    assert traces == {tick.context.trace_id}
    again = event_of(job, JobEventKind.FINISHED, site.plane.clock(), succeeded=True)
    take_in_event(site.later(minutes=1).services, again.model_dump_json().encode())
    assert site.recorded.values(names.JOB_OUTCOMES) == {("succeeded", "backup"): 1}


def test_a_job_whose_worker_fell_silent_is_counted_as_lost(site: Site) -> None:
    services = site.later(hours=24).services
    dispatch(services)
    job = job_of(site)
    began = event_of(job, JobEventKind.STARTED, site.plane.clock(), succeeded=None)
    take_in_event(services, began.model_dump_json().encode())
    for _ in range(LOST_AFTER // timedelta(minutes=1) + 2):
        dispatch(site.later(minutes=1).services)
    assert site.recorded.values(names.JOB_OUTCOMES)["lost", "backup"] == 1


def test_a_look_that_fails_is_counted_as_such_and_its_span_has_the_code(site: Site) -> None:
    with (
        pytest.raises(CatalogueUnavailable),
        look(site.services, "reconcile"),
    ):
        raise CatalogueUnavailable("the catalogue does not answer: canary-password")
    assert site.recorded.values(names.LOOKS)["error", "reconcile"] == 1
    [failed] = site.recorded.spans("timer reconcile")
    assert failed.attributes is not None
    assert failed.attributes["error_code"] == "catalogue-unavailable"
    assert "canary" not in failed.to_json()


@pytest.mark.parametrize(
    ("parameters", "operation"), [({}, "GET /api/findings"), ({"x": "canary"}, "unknown")]
)
def test_an_answer_is_counted_by_its_operation_never_by_what_the_caller_wrote(
    site: Site, parameters: dict[str, str], operation: str
) -> None:
    request = func.HttpRequest(
        "GET", "/api/findings", headers={}, params={}, route_params=parameters, body=b""
    )
    answered = serve(OPERATIONS, lambda: site.services, request)
    status = str(answered.status_code)
    assert site.recorded.values(names.HTTP_REQUESTS)[operation, status] == 1


def test_an_event_that_goes_to_azure_monitor_is_not_handed_to_the_host_as_well() -> None:
    program = (
        "import logging, functions.wiring as wiring; from shared.event_log import log_event\n"
        "logging.basicConfig(format='%(message)s'); wiring._observe(); log_event('job-sent', n=1)\n"
        "logging.getLogger('opentelemetry').warning('cannot send')"
    )
    with ingestion() as received:
        environment = {**os.environ, **received.environment}
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        )
    [sent] = received.events("job-sent")
    assert sent["n"] == "1"
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == [
        "telemetry-export-failed"
    ]


def test_the_host_gets_one_json_line_and_an_exporter_the_event_as_it_is(tmp_path: Path) -> None:
    heard: list[logging.LogRecord] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record)

    host, exporter, root = Listener(), Listener(), logging.getLogger()
    before, propagated, level = LOGGER.handlers[:], LOGGER.propagate, LOGGER.level
    root.addHandler(host)
    LOGGER.handlers[:], LOGGER.propagate = [HostLines(), exporter], False
    LOGGER.setLevel(logging.INFO)
    try:
        log_event("job-failed", level=logging.ERROR, code="x", path=tmp_path)
    finally:
        LOGGER.handlers[:], LOGGER.propagate = before, propagated
        LOGGER.setLevel(level)
        root.removeHandler(host)
    line, event = heard
    assert json.loads(line.getMessage())["event"] == "job-failed"
    assert json.loads(line.getMessage())["path"] == str(tmp_path)
    assert event.getMessage() == "job-failed"
    assert event.fields["code"] == "x"  # type: ignore[attr-defined]
