"""Structured log lines: one JSON object a line, a stable event name, no free text, no secrets."""

import json
import logging
from datetime import UTC, datetime
from typing import TextIO

LOGGER = logging.getLogger("pgkeep")


class JsonLines(logging.Formatter):
    """`{"at", "level", "event", …fields}`; fields come from `log_event` alone."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def log_event(event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Write one event. Names and their fields are listed in docs/reference/log-events.md."""
    LOGGER.log(level, event, extra={"fields": fields})


def write_to(stream: TextIO, *, level: int = logging.INFO) -> None:
    """Send pgkeep's events to `stream`; the Azure SDK only says warnings (it logs each request)."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(level)
    LOGGER.propagate = False
    logging.getLogger("azure").setLevel(logging.WARNING)
