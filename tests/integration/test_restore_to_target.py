"""A restore that was approved over HTTP: into a registered target, once, whoever dies meanwhile."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from local.postgres_server import PostgresServer, StopMode
from shared.domain.recovery_plan import TargetUnreachable
from shared.errors import PgkeepError
from shared.jobs.messages import RestoreJob
from shared.settings import RestoreTarget, Settings
from tests.harness.archived_history import COMMITS, History, UnreadableBlob, archived_history
from tests.harness.postgres_clusters import DEFAULT_MAJOR
from tests.harness.worker_services import CLUSTER
from worker.commands.perform import perform
from worker.commands.restore_to_target import (
    RestoreTargetForbidden,
    RestoreTargetMissing,
    RestoreTargetUnknown,
)
from worker.commands.services import Services
from worker.keys.generate import KeySet

pytestmark = [pytest.mark.integration, pytest.mark.slow]
JOB = UUID("018f2c1e-7b2a-5c8e-9b54-0d4a3f1c7e11")


@pytest.fixture(scope="module")
def history(key_set: KeySet) -> Iterator[History]:
    with archived_history(DEFAULT_MAJOR, key_set) as ready:
        yield ready


def services(history: History, directory: Path, **target: object) -> Services:
    """With one registered target, `rehearsal`."""
    made = history.site.services()
    registered = RestoreTarget(name="rehearsal", directory=directory, **target)
    settings: Settings = made.settings.model_copy(update={"target": (registered,)})
    return replace(made, settings=settings)


def job(**changes: object) -> RestoreJob:
    return RestoreJob.model_validate(
        {
            "job_id": JOB,
            "cluster": CLUSTER,
            "target": "rehearsal",
            "requested_by": "anna",
            "approved_by": "ben",
            **changes,
        }
    )


def rows(history: History, place: Path) -> list[tuple[int, ...]]:
    server = PostgresServer(history.source.programs, place, history.source.passwords)
    try:
        server.start()
        return server.query("SELECT n FROM ledger ORDER BY n")
    finally:
        server.stop(StopMode.IMMEDIATE)


def test_it_recovers_to_the_instant_and_a_second_delivery_changes_nothing(
    history: History, place: Path
) -> None:
    able, third = services(history, place), history.commits[3]
    made = place / f"{CLUSTER}-{JOB}"

    label = perform(able, job(to=third.time.isoformat()))
    receipt = json.loads((made / "restored.json").read_text())
    written = (made / "data" / "PG_VERSION").stat().st_mtime_ns
    again = perform(able, job(to=third.time.isoformat()))

    assert label == again == receipt["label"]
    assert (receipt["requested_by"], receipt["approved_by"]) == ("anna", "ben")
    assert (made / "data" / "PG_VERSION").stat().st_mtime_ns == written
    assert rows(history, made) == [(n,) for n in range(1, 4)]


def test_an_attempt_that_died_is_begun_anew(history: History, place: Path) -> None:
    able = services(history, place)
    left = place / f"{CLUSTER}-{JOB}" / "data"
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    neighbour = place / "of-somebody-else"
    neighbour.mkdir()
    failing = replace(able, store=UnreadableBlob(able.store, history.blob(-1)))

    with pytest.raises(PgkeepError):
        perform(failing, job())
    receipt = left.parent / "restored.json"
    assert not receipt.exists()
    assert perform(able, job()) == json.loads(receipt.read_text())["label"]
    assert not (left / "half").exists()
    assert neighbour.exists()
    assert rows(history, left.parent) == [(n,) for n in range(1, COMMITS + 1)]


@pytest.mark.parametrize(
    ("changes", "clusters", "error"),
    [
        ({"target": "other"}, (), RestoreTargetUnknown),
        ({}, ("another",), RestoreTargetForbidden),
        ({"to": "2020-01-01T00:00:00+00:00"}, (CLUSTER,), TargetUnreachable),
    ],
)
def test_what_cannot_be_done_is_refused_and_writes_no_data(
    history: History,
    place: Path,
    changes: dict[str, str],
    clusters: tuple[str, ...],
    error: type[PgkeepError],
) -> None:
    with pytest.raises(error):
        perform(services(history, place, clusters=clusters), job(**changes))
    assert list(place.rglob("PG_VERSION")) == []


def test_a_target_whose_directory_is_missing_is_refused(history: History, place: Path) -> None:
    with pytest.raises(RestoreTargetMissing, match="rehearsal"):
        perform(services(history, place / "unmounted"), job())
    assert not (place / "unmounted").exists()
