"""How far a receiver is, reported every now and then from a thread of its own.

The server's position counts for the instant before it was asked for; so whoever finds the archive
beyond it later knows that everything committed before that instant is safe.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.domain.lsn import Lsn
from shared.errors import PgkeepError
from shared.event_log import log_event
from shared.jobs.wal_events import SlotStatus, WalProgress
from shared.settings import ClusterSettings
from worker.commands.cluster_login import connect_to
from worker.commands.services import Services
from worker.commands.wal_reporter import WalReporter
from worker.postgres.wal_facts import wal_facts

HOST_LENGTH: Final = 200  # of WalProgress.host


@dataclass(frozen=True, slots=True)
class Reached:
    """What the stream tells: how far the server was at an instant, how far the archive is, and
    the last commit there.
    """

    timeline: int
    server_end: Lsn
    heard_at: datetime
    durable: Lsn
    last_commit: datetime | None


class ProgressReports:
    """Sends one at once, then one each [wal] report_seconds, as long as `tend` is called."""

    def __init__(self, services: Services, cluster: ClusterSettings, reporter: WalReporter) -> None:
        self._services = services
        self._cluster = cluster
        self._reporter = reporter
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pgkeep-wal-progress")
        self._under_way: Future[None] | None = None
        self._due = services.clocks.monotonic()
        self._trouble = ""

    def tend(self, reached: Callable[[], Reached]) -> None:
        """Returns at once."""
        now = self._services.clocks.monotonic()
        if now < self._due or (self._under_way and not self._under_way.done()):
            return
        self._due = now + self._services.settings.wal.report_seconds
        self._under_way = self._thread.submit(self._send, reached())

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _send(self, reached: Reached) -> None:
        asked_at = self._services.clocks.now()
        at, server_end, slot = reached.heard_at, reached.server_end, None
        if answer := self._ask():
            at, (server_end, slot) = asked_at, answer
        self._reporter.send(
            WalProgress(
                cluster=self._cluster.name,
                at=at,
                writer="receive",
                host=self._services.host[:HOST_LENGTH],
                timeline=reached.timeline,
                server_lsn=server_end,
                archived_lsn=reached.durable,
                archived_commit=reached.last_commit,
                unarchived_bytes=max(0, server_end - reached.durable),
                slot=slot,
            )
        )

    def _ask(self) -> tuple[Lsn, SlotStatus | None] | None:
        """By SQL, where the role may; else the stream's word must do."""
        name = self._cluster.wal.slot
        try:
            end, slot = wal_facts(connect_to(self._cluster), self._cluster.database, name)
        except PgkeepError as error:
            if self._trouble != error.code:
                log_event("wal-slot-unknown", slot=name, code=error.code, fact=error.fact)
            self._trouble = error.code
            return None
        self._trouble = ""
        if slot is None:
            return end, None
        return end, SlotStatus(
            name=name,
            active=slot.active,
            wal_status=slot.wal_status,
            retained_bytes=slot.retained_bytes,
            keep_bytes=slot.keep_bytes,
        )
