"""Whatever is wrong with telemetry: it is logged, and the worker goes on without."""

import logging
import threading

import pytest
import requests

from shared.telemetry import metric_names as names
from shared.telemetry.meters import NO_TELEMETRY
from worker import wiring
from worker.metrics_endpoint import serve_metrics
from worker.observation import CONNECTION_STRING, METRICS_ADDRESS, Observation, begin_observation


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "pgkeep"]


def test_an_environment_that_asks_for_nothing_gets_nothing() -> None:
    observation = begin_observation({METRICS_ADDRESS: "", CONNECTION_STRING: ""}, scraped=True)
    assert observation == Observation(NO_TELEMETRY)
    observation.telemetry.record(names.JOB_DURATION, 1, verb="backup", outcome="failed")
    observation.end()


def test_who_runs_shortly_takes_no_port() -> None:
    assert begin_observation({METRICS_ADDRESS: ":0"}, scraped=False) == Observation(NO_TELEMETRY)


@pytest.mark.parametrize("address", ["nonsense", "taken"])
def test_an_address_that_cannot_be_had_is_logged_and_the_worker_goes_on(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = serve_metrics(":0")
    try:
        wanted = f":{other.port}" if address == "taken" else address
        observation = begin_observation({METRICS_ADDRESS: wanted}, scraped=True)
    finally:
        other.close()
    assert observation == Observation(NO_TELEMETRY)
    assert events(caplog) == ["metrics-not-served"]


@pytest.mark.parametrize("connection", ["nonsense", "InstrumentationKey=1"])
def test_a_connection_string_that_is_none_is_logged_and_scrapes_go_on(
    connection: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pgkeep")
    asked = {CONNECTION_STRING: connection, METRICS_ADDRESS: ":0"}
    observation = begin_observation(asked, scraped=True)
    try:
        assert events(caplog) == ["metrics-served", "telemetry-not-exported"]
        assert connection not in caplog.text
        observation.telemetry.record(names.JOB_DURATION, 1, verb="backup", outcome="failed")
        assert observation.endpoint is not None
        url = f"http://127.0.0.1:{observation.endpoint.port}/metrics"
        text = requests.get(url, timeout=10).text
        assert 'pgkeep_job_duration_seconds_count{outcome="failed",verb="backup"} 1.0' in text
        assert 'service_name="pgkeep-worker"' in text
    finally:
        observation.end()


def test_the_end_waits_for_what_is_sent_but_not_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release, sent = threading.Event(), list[str]()

    def never() -> None:
        release.wait()

    def broken() -> None:
        raise OSError("the other side went away")

    try:
        Observation(NO_TELEMETRY, (never, broken, lambda: sent.append("all"))).end(limit_s=0.3)
    finally:
        release.set()
    assert sent == ["all"], "none waits for another"
    assert sorted(events(caplog)) == ["telemetry-lost", "telemetry-shutdown-failed"]


def test_b08_a_grace_that_is_over_ends_the_wait_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Observation) -> None:
        raise wiring.Interrupted

    monkeypatch.delenv(METRICS_ADDRESS, raising=False)
    monkeypatch.delenv(CONNECTION_STRING, raising=False)
    monkeypatch.setattr(Observation, "end", interrupted)
    with wiring.observed(scraped=True) as telemetry:
        assert telemetry is NO_TELEMETRY
