"""The endpoint for Prometheus: where it listens, what it says, and that it is never in the way."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.trace import NoOpTracerProvider

from shared.telemetry.meters import Telemetry, telemetry_of
from shared.telemetry.metric_names import METRICS
from tests.harness.worker_services import CHECKOUT
from worker.heartbeat import STOPPED_AFTER_S, check_heartbeat
from worker.metrics_endpoint import (
    MetricsAddressInvalid,
    MetricsEndpoint,
    MetricsNotServed,
    serve_metrics,
)

PAGE = CHECKOUT / "docs/how-to/scrape-with-prometheus.md"


@pytest.fixture
def endpoint() -> Iterator[MetricsEndpoint]:
    endpoint = serve_metrics(":0")
    yield endpoint
    endpoint.close()


@pytest.fixture
def telemetry(endpoint: MetricsEndpoint) -> Iterator[Telemetry]:
    meters = MeterProvider([endpoint.reader], shutdown_on_exit=False)
    yield telemetry_of(meters, NoOpTracerProvider())
    meters.shutdown()


def scrape(endpoint: MetricsEndpoint) -> str:
    answer = requests.get(f"http://{endpoint.host}:{endpoint.port}/metrics", timeout=10)
    assert answer.ok
    return answer.text


def record_all(telemetry: Telemetry) -> None:
    for rule in METRICS.values():
        telemetry.record(rule.name, 1, **dict.fromkeys(rule.attributes, "x"))


def names_in(text: str) -> set[str]:
    """A histogram counts once, a counter with its suffix."""
    families = re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE)
    return {name for name in families if name.startswith("pgkeep_")}


def test_without_a_host_it_is_loopback_that_listens(endpoint: MetricsEndpoint) -> None:
    assert endpoint.host == "127.0.0.1"
    assert scrape(endpoint) == "", "nothing was recorded yet"


@pytest.mark.parametrize(
    "address", ["", "9187", "host", "host:port", "h:99999", "u:p@h:1", "h:1/x", "[::1:5", "h:1?x"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(MetricsAddressInvalid, match="is not host:port"):
        serve_metrics(address)


def test_a_probe_hears_how_the_process_is_and_no_more(tmp_path: Path) -> None:
    beats = tmp_path / "alive"
    now = 1e9
    endpoint = serve_metrics(":0", lambda: check_heartbeat(beats, now))
    url = f"http://{endpoint.host}:{endpoint.port}/healthz"
    try:
        never = requests.get(url, timeout=10)
        assert (never.status_code, never.text) == (503, "heartbeat-stopped\n")
        beats.touch()
        os.utime(beats, (now - 12, now - 12))
        turning = requests.get(url, timeout=10)
        assert (turning.status_code, turning.text) == (200, "the last heartbeat was 12 s ago\n")
        now += STOPPED_AFTER_S
        assert requests.get(url, timeout=10).status_code == 503, "it hangs, though it answers"
        assert scrape(endpoint) == "", "metrics are where they were"
    finally:
        endpoint.close()


def test_without_a_heartbeat_nobody_is_told_that_all_is_well(endpoint: MetricsEndpoint) -> None:
    url = f"http://{endpoint.host}:{endpoint.port}/healthz"
    assert requests.get(url, timeout=10).status_code == 404


def test_a_port_that_another_has_is_said_so(endpoint: MetricsEndpoint) -> None:
    with pytest.raises(MetricsNotServed, match=f":{endpoint.port}: Address already in use"):
        serve_metrics(f":{endpoint.port}")


def test_the_document_names_each_metric_of_the_worker_as_prometheus_gets_it(
    endpoint: MetricsEndpoint, telemetry: Telemetry
) -> None:
    for rule in METRICS.values():
        if rule.emitted_by == "worker":
            telemetry.record(rule.name, 1, **dict.fromkeys(rule.attributes, "x"))
    rows = re.findall(r"^\| `(pgkeep\.[\w.]+)` \| `(\w+)` \|$", PAGE.read_text(), re.MULTILINE)
    assert names_in(scrape(endpoint)) == {name for _, name in rows}
    assert {name for name, _ in rows} == {
        rule.name for rule in METRICS.values() if rule.emitted_by == "worker"
    }


def test_scrapes_at_one_time_each_get_everything_once(
    endpoint: MetricsEndpoint, telemetry: Telemetry
) -> None:
    record_all(telemetry)
    expected = scrape(endpoint)
    with ThreadPoolExecutor(8) as executor:
        answers = set(executor.map(lambda _: scrape(endpoint), range(40)))
    assert answers == {expected}


_QUICK = """
import sys
from worker import cli
from worker.observation import begin_observation
assert begin_observation({}, scraped=True).shutdowns == ()
heavy = ("opentelemetry.sdk", "azure.monitor", "prometheus_client", "opentelemetry.exporter")
print([name for name in sys.modules if name.startswith(heavy)])
"""


def test_nothing_that_exports_is_loaded_before_it_is_asked_for() -> None:
    command = [sys.executable, "-c", _QUICK]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
