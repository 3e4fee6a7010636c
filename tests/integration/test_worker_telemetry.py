"""What the worker records is what its documents say, and it arrives before the process ends."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
import requests
from psycopg.conninfo import conninfo_to_dict

from local.azurite import EmulatedAccount
from local.postgres_server import PostgresServer
from shared import adapters
from shared.domain.backup import BackupKind
from shared.domain.cluster import cluster_name
from shared.domain.drill import DrillVerdict
from shared.domain.drill_target import DrillLevel
from shared.errors import StorageUnavailable
from shared.jobs.messages import BACKUP_QUEUE, AnyJob, BackupJob, DrillJob, parse_event
from shared.repository import layout
from shared.repository.blob_store import BlobName
from shared.repository.documents import DrillReport
from shared.repository.reports import read_report
from shared.telemetry import metric_names as names
from tests.harness.deadline import wait_until
from tests.harness.ingestion_stub import Ingestion, ingestion
from tests.harness.memory_queue import MemoryQueue
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.recorded_telemetry import Recorded, recorded_telemetry
from tests.harness.wal_agents import client, running_agent, with_agent
from tests.harness.wal_receiver import (
    SMALL,
    inventory,
    position,
    receiving,
    wait_until_flushed,
    with_wal,
    write_wal,
)
from tests.harness.worker_services import CHECKOUT, CLUSTER, Site, WatchedStore, make_site
from worker import job_runner
from worker.commands.recorded_outcomes import record_drill
from worker.commands.services import Services
from worker.job_runner import Inbox, serve_one
from worker.job_watch import JOB_SPAN, PHASE_SPAN
from worker.keys.generate import KeySet
from worker.observation import METRICS_ADDRESS
from worker.wiring import Interrupted

pytestmark = pytest.mark.integration

LIMIT_S = 60
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


def backup_job(cluster: str = CLUSTER) -> BackupJob:
    return BackupJob(job_id=uuid4(), cluster=cluster, kind=BackupKind.FULL, traceparent=TRACEPARENT)


def serve(site: Site, job: AnyJob, recorded: Recorded, **changes: Any) -> MemoryQueue:
    """One job in this process; the events that it sent."""
    jobs, events = MemoryQueue(), MemoryQueue()
    jobs.send(job.model_dump_json())
    services = site.services(telemetry=recorded.telemetry, **changes)
    assert serve_one(services, Inbox(jobs, MemoryQueue()), events)
    return events


def test_a_backup_and_its_drill_record_what_their_signed_documents_say(site: Site) -> None:
    recorded = recorded_telemetry()
    taken = site.backup(telemetry=recorded.telemetry).document
    drill = DrillJob(job_id=uuid4(), cluster=CLUSTER, traceparent=TRACEPARENT)
    serve(site, drill, recorded)
    services = site.services()
    name = layout.drill_report(cluster_name(CLUSTER), str(drill.job_id))
    report = read_report(services.store, name, services.pinned).report
    assert isinstance(report, DrillReport)

    which = (CLUSTER, "full")
    assert recorded.values(names.BACKUP_DURATION) == {which: taken.total_ms / 1000}
    assert recorded.values(names.BACKUP_BYTES) == {
        (*which, "plain"): taken.plain_size,
        (*which, "stored"): taken.stored_size,
    }
    assert recorded.values(names.BACKUP_RATIO) == {which: taken.stored_size / taken.plain_size}
    assert recorded.values(names.DRILL_PHASE) == {
        (CLUSTER, phase): ms / 1000 for phase, ms in report.phases_ms.items()
    }
    assert recorded.values(names.DRILL_RTO) == {(CLUSTER, "asked-for"): report.rto_ms / 1000}
    assert report.rto_ms > 0
    assert names.DRILL_RPO not in recorded.metrics(), "no instant was asked for"

    report = report.model_copy(update={"rpo_ms": 1500, "level": DrillLevel.QUICK})
    again = recorded_telemetry()
    record_drill(again.telemetry, report.model_copy(update={"verdict": DrillVerdict.FAILED}))
    assert again.metrics() == {}, "one that stopped half-way was not quick"
    record_drill(again.telemetry, report)
    assert again.values(names.DRILL_RPO) == {(CLUSTER,): 1.5}
    assert list(again.values(names.DRILL_RTO)) == [(CLUSTER, "quick")]
    for one in (recorded, again):
        one.assert_that_it_is_as_the_table_says("worker")

    (job,) = recorded.spans(JOB_SPAN)
    assert job.attributes is not None
    assert job.attributes["result"] == str(drill.job_id)
    phases = recorded.spans(PHASE_SPAN)
    assert [span.attributes and span.attributes["phase"] for span in phases] == [
        *("plan", "keys", "fetch+apply", "recovery", "checks")
    ]
    assert {span.parent and span.parent.span_id for span in phases} == {job.context.span_id}


def test_a_job_goes_on_with_the_trace_of_its_message_and_so_do_its_events(site: Site) -> None:
    recorded, job = recorded_telemetry(), backup_job("unknown")
    events = serve(site, job, recorded)
    (span,) = recorded.spans(JOB_SPAN)
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == f"{TRACE}-{SPAN}"
    assert span.attributes == {
        "verb": "backup",
        "cluster": "unknown",
        "job_id": str(job.job_id),
        "outcome": "failed",
        "error_code": "settings-invalid",
    }
    ((attributes, seconds),) = recorded.values(names.JOB_DURATION).items()
    assert attributes == ("failed", "backup")
    assert seconds > 0
    message = events.receive(60)
    assert message is not None
    sent = parse_event(message.body).traceparent
    assert sent == f"00-{TRACE}-{span.context.span_id:016x}-01"


@pytest.mark.parametrize("parent", [None, "", "00-zz-01", "x" * 200])
def test_a_message_without_a_readable_trace_begins_one_and_the_job_does_not_mind(
    site: Site, parent: str | None
) -> None:
    recorded = recorded_telemetry()
    serve(site, backup_job("unknown").model_copy(update={"traceparent": parent}), recorded)
    (span,) = recorded.spans(JOB_SPAN)
    assert span.parent is None


def test_an_attempt_that_is_repeated_is_told_from_one_that_is_over(site: Site) -> None:
    def away(_name: BlobName) -> None:
        raise StorageUnavailable("the storage is away")

    recorded = recorded_telemetry()
    store = WatchedStore(site.services().store, before=away)
    serve(site, backup_job(), recorded, store=store)
    assert list(recorded.values(names.JOB_DURATION)) == [("released", "backup")]
    (span,) = recorded.spans(JOB_SPAN)
    assert span.attributes is not None
    assert span.attributes["error_code"] == "storage-unavailable"
    assert names.BACKUP_DURATION not in recorded.metrics(), "nothing was committed"


def test_b08_an_attempt_that_is_interrupted_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(services: Services, job: AnyJob) -> str:
        services.progress.phase("backup")
        raise Interrupted

    monkeypatch.setattr(job_runner, "perform", interrupted)
    recorded = recorded_telemetry()
    serve(site, backup_job(), recorded)
    assert list(recorded.values(names.JOB_DURATION)) == [("released", "backup")]
    (span,), (phase,) = recorded.spans(JOB_SPAN), recorded.spans(PHASE_SPAN)
    assert span.attributes is not None
    assert span.attributes["error_code"] == "Interrupted"
    assert phase.end_time is not None
    assert span.end_time is not None
    assert phase.end_time <= span.end_time


@pytest.fixture
def server(make_cluster: MakeCluster) -> PostgresServer:
    return make_cluster(SMALL)


@pytest.fixture
def small(place: Path, key_set: KeySet, server: PostgresServer) -> Site:
    return with_wal(make_site(place / "site", key_set, server, database="postgres"))


def test_a_receiver_s_lag_grows_while_nothing_gets_durable_and_is_scraped_from_its_process(
    small: Site, server: PostgresServer
) -> None:
    recorded, held, opened = recorded_telemetry(), Event(), Event()
    opened.set()

    def wait(name: BlobName) -> None:
        if name.container == layout.WAL and not opened.is_set():
            held.set()
            assert opened.wait(LIMIT_S)

    def lag() -> float:
        return recorded.values(names.WAL_RECEIVE_LAG).get((CLUSTER,), float("inf"))

    store = WatchedStore(small.services().store, before=wait)
    with receiving(small, telemetry=recorded.telemetry, store=store):
        wait_until_flushed(server, write_wal(server, 2))
        wait_until(lambda: lag() < 1, LIMIT_S, "it has caught up")
        opened.clear()
        end = write_wal(server)
        assert held.wait(LIMIT_S)
        wait_until(lambda: lag() > 1.1, LIMIT_S, "it says that it is behind")
        opened.set()
        wait_until_flushed(server, end)
        wait_until(lambda: lag() < 1, LIMIT_S, "it has caught up again")
    (acknowledged,) = recorded.metrics()[names.WAL_ACKNOWLEDGE]
    assert acknowledged.count > 0
    assert acknowledged.value > 1.1, "one of them was held"
    stored = [name for name in store.committed if name.container == layout.WAL]
    assert recorded.values(names.WAL_SEGMENTS) == {(CLUSTER, "new"): len(stored)}
    recorded.assert_that_it_is_as_the_table_says("worker")

    with scraped(small, "wal", "receive", CLUSTER) as look:
        wait_until_flushed(server, write_wal(server, 2))
        found = wait_until(lambda: caught_up(look()), LIMIT_S, "the scrape says so") or {}
    assert found['pgkeep_wal_segments_total{cluster="main",outcome="new"}'] >= 2
    assert found['pgkeep_wal_acknowledge_seconds_count{cluster="main"}'] >= 2
    assert inventory(small, 1 << 20).of(1)[0].end >= position(server) - (1 << 20)


def test_an_agent_counts_segments_and_times_the_answers_that_postgresql_waits_for(
    small: Site, server: PostgresServer
) -> None:
    recorded, site = recorded_telemetry(), with_agent(small)
    with server.connect() as sql:
        row = sql.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
    assert row is not None
    path = server.data / "pg_wal" / row[0]
    damaged = small.folder / "0000000100000000000000FE"
    damaged.write_bytes(bytes(1 << 20))
    with running_agent(site.services(telemetry=recorded.telemetry), site.cluster) as socket:
        for file, status in ((path, 0), (path, 0), (damaged, 3)):
            assert client(socket, "push", file, file.name).status == status
    assert recorded.values(names.WAL_SEGMENTS) == {(CLUSTER, "new"): 1}
    (answered,) = recorded.metrics()[names.WAL_ACKNOWLEDGE]
    assert answered.count == 2, "both that became durable"
    recorded.assert_that_it_is_as_the_table_says("worker")


def caught_up(found: Mapping[str, float]) -> Mapping[str, float] | None:
    lag = found.get('pgkeep_wal_receive_lag_seconds{cluster="main"}', 60)
    return found if lag < 1 else None


@contextmanager
def scraped(site: Site, *words: str) -> Iterator[Any]:
    """A process of ours, and what it answers to a scrape; it must show that it lives, and end well
    on SIGTERM.
    """
    watched = {"PGKEEP_HEARTBEAT": str(site.folder / "alive")}
    with started(site, {METRICS_ADDRESS: ":0", **watched}, *words) as process:
        assert process.stderr is not None
        while (line := json.loads(process.stderr.readline()))["event"] != "metrics-served":
            pass
        assert line["host"] == "127.0.0.1"
        yield lambda: scrape(f"http://127.0.0.1:{line['port']}/metrics")
        health = site.pgkeep("health", environment=watched)
        assert health.returncode == 0, health.stderr
        process.terminate()
        _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors


def scrape(url: str) -> dict[str, float]:
    lines = requests.get(url, timeout=10).text.splitlines()
    values = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in values}


@contextmanager
def started(
    site: Site, environment: Mapping[str, str], *words: str
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "worker", *words],
        cwd=CHECKOUT,
        env={**os.environ, "PGKEEP_CONFIG": str(site.config), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def queued(site: Site, azurite_account: EmulatedAccount) -> Site:
    credential = {"kind": "emulator-key", "account_key": azurite_account.key}
    queues = {"account_url": azurite_account.queue_url, "credential": credential}
    return site.changed(queues=queues)


def enqueue(site: Site, *jobs: AnyJob) -> None:
    queue = adapters.job_queue(site.settings, BACKUP_QUEUE)
    queue.create_if_missing()
    for job in jobs:
        queue.send(job.model_dump_json())


def job_metric(received: Ingestion, outcome: str) -> bool:
    return any(
        metric["properties"] == {"verb": "backup", "outcome": outcome} and metric["value"] > 0
        for metric in received.metrics(names.JOB_DURATION)
    )


def test_a_job_s_process_sends_everything_before_it_ends_well_or_not_and_no_secret(
    queued: Site, azurite_account: EmulatedAccount
) -> None:
    enqueue(queued, good := backup_job(), bad := backup_job("unknown"))
    with ingestion() as received:
        for job, outcome in ((good, "succeeded"), (bad, "failed")):
            done = queued.pgkeep("run", "--once", environment=received.environment)
            assert done.returncode == 0, done.stderr
            assert job_metric(received, outcome), done.stderr
            span = received.spans(JOB_SPAN)[-1]
            assert span["tags"]["ai.operation.id"] == TRACE
            assert span["tags"]["ai.operation.parentId"] == SPAN
            assert span["data"]["baseData"]["properties"]["job_id"] == str(job.job_id)
            assert span["data"]["baseData"]["success"] is (outcome == "succeeded")
    (bytes_stored,) = (
        metric["value"]
        for metric in received.metrics(names.BACKUP_BYTES)
        if metric["properties"]["what"] == "stored"
    )
    assert bytes_stored > 0
    (event,) = received.events("job-finished")
    assert event["job_id"] == str(good.job_id)
    assert set(received.operations("job-finished")) == {TRACE}, "events are of the job's trace"
    everything = b"".join(received.bodies).decode()
    secrets = [
        str(conninfo_to_dict(queued.values["cluster"]["dsn"])["password"]),
        azurite_account.key,
        queued.keys.wrapping.private.read_text().splitlines()[1],
    ]
    assert [secret for secret in secrets if secret in everything] == []
    assert not re.search("PRIVATE KEY|BEGIN ", everything)


def test_b08_a_worker_that_is_asked_to_go_sends_what_it_has(queued: Site) -> None:
    enqueue(queued, backup_job("unknown"))
    with ingestion() as received:
        with started(queued, received.environment, "run", "--queue", BACKUP_QUEUE) as process:
            assert process.stderr is not None
            while json.loads(process.stderr.readline())["event"] != "job-failed":
                pass
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0
        assert job_metric(received, "failed")
        (event,) = received.events("job-failed")
    assert (event["code"], event["again"]) == ("settings-invalid", "false")


@pytest.mark.slow
def test_telemetry_that_nobody_takes_delays_the_end_by_seconds_and_changes_nothing_else(
    queued: Site,
) -> None:
    enqueue(queued, backup_job("unknown"))
    with ingestion(silent=True) as received:
        done = queued.pgkeep("run", "--once", environment=received.environment)
        assert received.asked.is_set()
    assert done.returncode == 0, done.stderr
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert events[-1] == "telemetry-lost", "and no line of anybody else's"
