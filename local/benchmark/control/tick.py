"""Ticks of the dispatcher over a large fleet: a quiet one, a usual one, and the nightly one."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from uuid import uuid4

from psycopg import sql

from functions.timer_dispatch import follow_settings, serve_due
from functions.wiring import Services
from local.benchmark.control.report import ControlRow, control_row
from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer
from shared.catalogue.migrate import migrate
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.jobs.queue import JobQueue
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.settings import Settings

CLUSTERS = 10_000
_SOME = 100
# A Monday evening; the next incrementals are due at 02:00 UTC.
_EVENING = datetime(2026, 11, 23, 21, tzinfo=UTC)
_NIGHT = datetime(2026, 11, 24, 2, 0, 5, tzinfo=UTC)
_NOON = datetime(2026, 11, 24, 12, 34, 5, tzinfo=UTC)


def measure_ticks(programs: Path, directory: Path, runs: int) -> Iterator[ControlRow]:
    """Each run on a catalogue of its own; limits are off, so that all that is due starts."""
    with PostgresServer.create(programs, directory, ClusterOptions(fsync=False)) as server:
        walls: dict[str, list[float]] = {}
        for number in range(runs):
            for name, wall in _one_run(server, f"fleet_{number}", directory):
                walls.setdefault(name, []).append(wall)
    counts = {"a tick with some due": _SOME, "a tick with nothing due": 0}
    for name, measured in walls.items():
        aim = "2 s" if "tick" in name else None
        yield control_row(name, counts.get(name, CLUSTERS), measured, aim)


def _one_run(server: PostgresServer, name: str, directory: Path) -> Iterator[tuple[str, float]]:
    with server.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate(server.dsn(name), _EVENING)
    began = time.monotonic()
    settings = fleet_settings()
    yield "settings of the fleet, read", time.monotonic() - began
    services = services_on(settings, server.dsn(name), directory)
    yield "agenda, first made", _timed(follow_settings, services, _EVENING)
    yield "first full backups, all at once, a tick", _timed(serve_due, services, _EVENING)
    server.query("update job set state = 'succeeded'", dbname=name)
    yield "a tick with nothing due", _timed(_tick, services, _EVENING + timedelta(minutes=1))
    yield "the nightly tick, all due", _timed(_tick, services, _NIGHT)
    server.query("update job set state = 'succeeded'", dbname=name)
    yield "a tick with some due", _timed(_tick, services, _NOON)


def _tick(services: Services) -> None:
    follow_settings(services)
    serve_due(services)


def _timed(step: Callable[[Services], None], services: Services, now: datetime) -> float:
    at_that_time = replace(services, clock=lambda: now)
    began = time.monotonic()
    step(at_that_time)
    return time.monotonic() - began


def fleet_settings() -> Settings:
    """All want the default, but that only each hundredth cluster expires, at noon."""
    clusters = [
        {
            "name": f"c{number:05d}",
            "dsn": f"host=db{number} user=backup_user",
            "schedule": {"expire": "34 12 * * *" if number % _SOME == 0 else False},
        }
        for number in range(CLUSTERS)
    ]
    fleet = {"per_host": CLUSTERS, "per_account": 20 * CLUSTERS}
    repository = {"type": "directory", "path": "unused"}
    return Settings.model_validate({"repository": repository, "cluster": clusters, "fleet": fleet})


def services_on(settings: Settings, dsn: str, directory: Path) -> Services:
    """Nothing is sent: a job stays with those that wait."""
    return Services(
        settings=settings,
        store=DirectoryBlobStore(directory / "unused"),
        queues={},
        events=cast("JobQueue", None),  # nothing is sent
        catalogue=PostgresCatalogue(dsn),
        pinned={},
        clock=lambda: _EVENING,
        new_id=uuid4,
    )
