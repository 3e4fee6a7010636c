"""The host's pure rules: schedules, blob paths, routes, indexing."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest
from azure.functions.timer import TimerRequest
from hypothesis import given
from hypothesis import strategies as st

from local.functions_host.app_settings import HostJson, read_host_json, resolve
from local.functions_host.blob_events import BlobPath
from local.functions_host.indexing import AppRefused, HostedFunction, index_app
from local.functions_host.receipts import BlobEvent, Receipts
from local.functions_host.timers import TimerTriggers, next_due
from local.processes import wait_until

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Hand:
    """A clock that a test turns."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def timer(schedule: str, calls: list[TimerRequest], **binding: object) -> HostedFunction:
    trigger = {"type": "timerTrigger", "name": "timer", "schedule": schedule, **binding}

    def tick(timer: TimerRequest) -> None:
        calls.append(timer)

    return HostedFunction("tick", tick, trigger)


def serve(function: HostedFunction, state: Path, clock: Hand, steps: list[timedelta]) -> None:
    with ThreadPoolExecutor() as pool:
        timers = TimerTriggers([function], {}, state, pool, clock)
        timers.serve()
        for step in steps:
            clock.now += step
            timers.serve()


def test_a_missed_stretch_is_served_once_by_its_newest_tick() -> None:
    due = next_due("0 */5 * * * *", NOON, NOON + timedelta(minutes=17))
    assert due == NOON + timedelta(minutes=15)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_next_tick_comes_after_the_served_one_and_none_is_skipped(
    served_s: int, wait_s: int
) -> None:
    served = NOON + timedelta(seconds=served_s)
    now = served + timedelta(seconds=wait_s)
    due = next_due("*/7 * * * * *", served, now)
    assert due > served
    assert due > now or now - due <= timedelta(seconds=7)


def test_a_timer_fires_at_its_tick_and_not_before(tmp_path: Path) -> None:
    calls: list[TimerRequest] = []
    serve(timer("30 * * * * *", calls), tmp_path, Hand(NOON), [timedelta(seconds=29)])
    assert calls == []
    serve(timer("30 * * * * *", calls), tmp_path, Hand(NOON), [timedelta(seconds=30)])
    assert [call.past_due for call in calls] == [False]


def test_a_tick_missed_while_the_host_was_down_comes_past_due(tmp_path: Path) -> None:
    calls: list[TimerRequest] = []
    hourly = timer("0 0 * * * *", calls)
    serve(hourly, tmp_path, Hand(NOON), [timedelta(hours=1)])
    serve(hourly, tmp_path, Hand(NOON + timedelta(hours=4, minutes=3)), [])
    assert [call.past_due for call in calls] == [False, True]


def test_a_frequent_timer_makes_up_for_nothing_after_a_restart(tmp_path: Path) -> None:
    calls: list[TimerRequest] = []
    often = timer("*/2 * * * * *", calls)
    serve(often, tmp_path, Hand(NOON), [timedelta(seconds=2)])
    serve(often, tmp_path, Hand(NOON + timedelta(hours=4)), [])
    assert len(calls) == 1


def test_a_timer_never_runs_twice_at_once(tmp_path: Path) -> None:
    release, calls = Event(), []

    def slow(timer: TimerRequest) -> None:
        calls.append(timer)
        release.wait(30)

    clock = Hand(NOON)
    function = HostedFunction(
        "slow", slow, {"type": "timerTrigger", "name": "timer", "schedule": "* * * * * *"}
    )
    with ThreadPoolExecutor() as pool:
        timers = TimerTriggers([function], {}, tmp_path, pool, clock)
        for _ in range(5):
            clock.now += timedelta(seconds=1)
            timers.serve()
        assert wait_until(lambda: calls != [], 30)
        release.set()
    assert len(calls) == 1


def test_run_on_startup_runs_before_the_first_tick(tmp_path: Path) -> None:
    calls: list[TimerRequest] = []
    serve(timer("0 0 3 * * *", calls, runOnStartup=True), tmp_path, Hand(NOON), [])
    assert len(calls) == 1


@pytest.mark.parametrize("schedule", ["* * * * *", "61 * * * * *", "0 0 0 31 2 *", "soon"])
def test_a_schedule_that_azure_would_not_run_is_refused(tmp_path: Path, schedule: str) -> None:
    with ThreadPoolExecutor() as pool, pytest.raises(AppRefused, match="tick"):
        TimerTriggers([timer(schedule, [])], {}, tmp_path, pool, Hand(NOON))


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        ("full/{cluster}/{label}/backup.json", "main/20260101/backup.json", True),
        ("full/{cluster}/{label}/backup.json", "main/x/y/backup.json", False),
        ("full/{cluster}/{label}/backup.json", "main/x/backup_json", False),
        ("full/{cluster}/{label}/backup.json", "main/x/backup.json.old", False),
        ("full/{name}", "a/b/c", True),
        ("full/a.b/{name}.json", "a.b/x.json", True),
        ("full/a.b/{name}.json", "aXb/x.json", False),
    ],
)
def test_a_blob_path_matches_folder_by_folder(path: str, name: str, *, expected: bool) -> None:
    assert BlobPath.parse(path).matches(name) is expected


def test_only_the_literal_beginning_of_a_path_is_listed() -> None:
    path = BlobPath.parse("evidence/main/drills/{id}/report.json")
    assert (path.container, path.prefix) == ("evidence", "main/drills/")


@pytest.mark.parametrize("path", ["{container}/x", "full", "full/"])
def test_a_blob_path_without_a_plain_container_is_refused(path: str) -> None:
    with pytest.raises(AppRefused, match="container"):
        BlobPath.parse(path)


def test_settings_are_put_into_binding_expressions() -> None:
    assert resolve("%A%-%B%", {"A": "1", "B": "2"}) == "1-2"
    with pytest.raises(AppRefused, match="SCHEDULE"):
        resolve("%SCHEDULE%", {})


def test_host_json_is_read_with_the_defaults_of_azure(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    path.write_text('{"version": "2.0"}')
    assert read_host_json(path) == HostJson()
    path.write_text(
        '{"extensions": {"http": {"routePrefix": ""}, '
        '"queues": {"maxDequeueCount": 3, "visibilityTimeout": "00:01:30"}}}'
    )
    assert read_host_json(path) == HostJson("", 3, 90)


def test_receipts_survive_the_process_and_count_failures(tmp_path: Path) -> None:
    event = BlobEvent("f", "full", "a/backup.json", "0x1")
    receipts = Receipts(tmp_path / "receipts.sqlite")
    assert [receipts.count_failure(event) for _ in range(2)] == [1, 2]
    assert not receipts.is_done(event)
    receipts.close()
    again = Receipts(tmp_path / "receipts.sqlite")
    assert again.count_failure(event) == 3
    again.finish(event)
    assert again.is_done(event)
    assert not again.is_done(BlobEvent("f", "full", "a/backup.json", "0x2"))
    again.close()


HEAD = "import azure.functions as func\napp = func.FunctionApp()\n"


@pytest.mark.parametrize(
    ("source", "fact"),
    [
        ("", "0 FunctionApp"),
        (HEAD + "other = func.FunctionApp()", "2 FunctionApp"),
        (
            HEAD + "@app.timer_trigger('timer', schedule='* * * * * *')\n"
            "def tick(timer: func.TimerRequest, extra: int = 1) -> None: ...",
            "tick takes",
        ),
        (
            HEAD + "@app.event_grid_trigger('event')\n"
            "def heard(event: func.EventGridEvent) -> None: ...",
            "eventGridTrigger",
        ),
        (
            HEAD + "@app.queue_trigger('msg', queue_name='q', connection='C')\n"
            "@app.queue_output('out', queue_name='p', connection='C')\n"
            "def pass_on(msg: func.QueueMessage, out: func.Out[str]) -> None: ...",
            "beside its trigger",
        ),
    ],
)
def test_an_app_that_cannot_be_played_is_refused(tmp_path: Path, source: str, fact: str) -> None:
    (tmp_path / "function_app.py").write_text(source)
    with pytest.raises(AppRefused, match=fact):
        index_app(tmp_path)


def test_a_folder_without_an_app_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AppRefused, match="there is no"):
        index_app(tmp_path)
