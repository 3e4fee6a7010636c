"""An event of ours is a row of AppTraces: its name the message, its fields flat text beside it."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from shared.event_log import LOGGER, log_event
from shared.telemetry import azure_monitor
from shared.telemetry.azure_monitor import EventsToAzureMonitor


@pytest.fixture
def sent() -> Iterator[InMemoryLogRecordExporter]:
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call] # not annotated
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    handler = EventsToAzureMonitor(provider.get_logger("test"))
    LOGGER.addHandler(handler)
    yield exporter
    LOGGER.removeHandler(handler)


def test_fields_are_flat_text_whatever_their_names_and_types(
    sent: InMemoryLogRecordExporter,
) -> None:
    log_event(
        "job-failed",
        level=logging.ERROR,
        job_id=UUID(int=1),
        again=False,
        name="a field, not the logger",
        args=3,
        at=datetime(2026, 11, 23, tzinfo=UTC),
        path=Path("/x"),
        several=("a", 1),
        nobody=None,
    )
    (record,) = (entry.log_record for entry in sent.get_finished_logs())
    assert (record.body, record.severity_text) == ("job-failed", "ERROR")
    assert record.attributes == {
        "job_id": "00000000-0000-0000-0000-000000000001",
        "again": "false",
        "name": "a field, not the logger",
        "args": "3",
        "at": "2026-11-23 00:00:00+00:00",
        "path": "/x",
        "several": json.dumps(["a", 1]),
    }


def test_an_outage_of_the_other_side_is_one_event_however_long(
    sent: InMemoryLogRecordExporter, caplog: pytest.LogCaptureFixture
) -> None:
    exporters = [logging.getLogger(name) for name in azure_monitor.EXPORTERS]
    before = [(each, each.handlers[:], each.level, each.propagate) for each in exporters]
    try:
        azure_monitor.log_trouble_once()
        for logger in exporters:
            for _ in range(3):
                logger.warning("cannot send: %s", "x" * 1000)
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
    ((name, fields),) = (
        (record.getMessage(), record.__dict__["fields"]) for record in caplog.records
    )
    assert name == "telemetry-export-failed"
    assert fields["fact"].startswith("cannot send: xxx")
    assert len(fields["fact"]) == 200
    assert len(sent.get_finished_logs()) == 1
