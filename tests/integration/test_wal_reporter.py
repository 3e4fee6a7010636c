"""Reports of a WAL writer on a real queue, and without one."""

from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import pytest

from local.azurite import EmulatedAccount
from local.free_port import free_port
from shared import adapters
from shared.domain.lsn import Lsn
from shared.jobs.messages import WAL_EVENT_QUEUE
from shared.jobs.wal_events import WalGapSeen, parse_wal_event
from shared.settings import Settings
from worker.commands.wal_reporter import LogReporter, open_reporter

pytestmark = pytest.mark.integration

GAP = WalGapSeen(
    cluster="main",
    at=datetime(2026, 11, 22, 12, tzinfo=UTC),
    writer="receive",
    host="db1/7",
    timeline=1,
    from_lsn=Lsn(16),
    to_lsn=Lsn(32),
)


def settings(place: Path, queue_url: str | None, key: str = "") -> Settings:
    queues = {
        "account_url": queue_url,
        "credential": {"kind": "emulator-key", "account_key": key},
    }
    repository = {"type": "directory", "path": place}
    return Settings.model_validate(
        {"repository": repository} | ({"queues": queues} if queue_url else {})
    )


def test_reports_make_their_queue_and_arrive(
    tmp_path: Path, azurite_account: EmulatedAccount
) -> None:
    configured = settings(tmp_path, azurite_account.queue_url, azurite_account.key)
    for _ in range(2):
        with open_reporter(configured) as reporter:
            reporter.send(GAP)
        queue = adapters.job_queue(configured, WAL_EVENT_QUEUE)
        message = queue.receive(60)
        assert message is not None
        assert parse_wal_event(message.body) == GAP
        queue.delete(message)
        queue.close()


def test_w12_a_queue_that_is_away_holds_nobody_up(
    tmp_path: Path, azurite_account: EmulatedAccount
) -> None:
    away = f"http://127.0.0.1:{free_port()}/{azurite_account.name}"
    began = monotonic()
    with open_reporter(settings(tmp_path, away, azurite_account.key)) as reporter:
        for _ in range(100):
            reporter.send(GAP)
        sent = monotonic()
    assert sent - began < 2
    assert monotonic() - sent < 15


def test_without_a_queue_the_log_is_all_there_is(tmp_path: Path) -> None:
    with open_reporter(settings(tmp_path, None)) as reporter:
        assert isinstance(reporter, LogReporter)
