"""Following a recovery until it is over: how far the replay is, and why it ended if it failed.

An instance that replays WAL answers once it is consistent; before that, only what it fetches shows
that it lives. It may fall silent for as long as it makes no progress, not for as long as it takes.
"""

import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from threading import Event
from typing import Final, LiteralString

import psycopg
from psycopg.rows import TupleRow

from shared.domain.lsn import Lsn
from shared.errors import (
    InstanceNotStarted,
    InstanceTimeout,
    PgkeepError,
    Unavailable,
)
from worker.postgres.instance import (
    POLL_S,
    Instance,
    connect_instance,
    last_log_lines,
    why_it_ended,
)
from worker.postgres.table_facts import fetch_one

# The one database that every instant of every cluster has.
_DATABASE: Final = "template1"


class TargetNotReached(InstanceNotStarted):
    """The WAL ended before PostgreSQL met the recovery target; nothing was promoted."""

    code = "target-not-reached"
    hint = "Choose an earlier target or the end of the archived WAL; the server's log is quoted."


class TargetBeforeConsistency(InstanceNotStarted):
    """PostgreSQL met the recovery target before the end of the backup."""

    code = "target-before-backup-end"
    hint = "Choose an older backup with --label, or a later target."


class WalNotRestored(Unavailable):
    """PostgreSQL stopped because WAL that exists could not be given to it; nothing was promoted."""

    code = "wal-not-restored"
    hint = "When the storage answers again, repeat it into an empty directory."


class Outcome(Enum):
    """How following a recovery ended.

    PAUSED: the source's limits grew meanwhile (max_connections and its like), and a hot standby
    waits rather than go on with less; started anew with what pg_control says now, it goes on.
    """

    OPEN = "open"
    SHUT_DOWN = "shut down"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class ReplayPosition:
    """`last_commit`: when the last replayed transaction ended, by the source's clock."""

    lsn: Lsn
    last_commit: datetime | None
    in_recovery: bool
    paused: bool


@dataclass(frozen=True, slots=True)
class Followed:
    """Seconds count from the instance's start; `consistent_s` None: it never answered before."""

    outcome: Outcome
    position: ReplayPosition | None
    consistent_s: float | None
    ended_s: float


# Words of the server's log (English, because lc_messages is C) of startup.c and xlogrecovery.c.
_WHY: Final[tuple[tuple[str, type[PgkeepError]], ...]] = (
    ("could not restore file", WalNotRestored),
    ("recovery ended before configured recovery target was reached", TargetNotReached),
    ("requested recovery stop point is before consistent recovery point", TargetBeforeConsistency),
)
_SHUT_DOWN_AT_TARGET: Final = "shutdown at recovery target"


def follow_replay(
    instance: Instance,
    *,
    patience_s: float,
    fetched: Callable[[], int],
    seen: Callable[[ReplayPosition], None],
    clock: Callable[[], float] = time.monotonic,
) -> Followed:
    """Until recovery is over, or paused for good; tells `seen` each position.

    Raises what the end of the instance means: TargetNotReached, TargetBeforeConsistency,
    WalNotRestored, InstanceStarved, InstanceLacksLibrary, InstanceNotStarted; and InstanceTimeout
    when for `patience_s` seconds neither the position moved nor anything more was `fetched`.
    """
    watch = _Watch(instance, patience_s, fetched, clock)
    while True:
        connection = _connected(instance)
        if connection is not None:
            with closing(connection), suppress(psycopg.OperationalError):
                watch.answered()
                while True:
                    position = replay_position(connection)
                    seen(position)
                    watch.look(position)
                    if not position.in_recovery:
                        return watch.followed(Outcome.OPEN)
                    if position.paused:
                        return watch.followed(Outcome.PAUSED)
                    Event().wait(POLL_S)
        if not instance.running:
            return watch.ended()
        watch.look(None)
        Event().wait(POLL_S)


class _Watch:
    """What was seen so far, and when something last moved."""

    def __init__(
        self,
        instance: Instance,
        patience_s: float,
        fetched: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._instance, self._patience_s = instance, patience_s
        self._fetched, self._clock = fetched, clock
        self._moved_at = clock()
        self._last: tuple[Lsn | None, int] = (None, 0)
        self._position: ReplayPosition | None = None
        self._consistent_s: float | None = None

    def answered(self) -> None:
        if self._consistent_s is None:
            self._consistent_s = self._clock() - self._instance.started

    def look(self, position: ReplayPosition | None) -> None:
        """Raises InstanceTimeout when nothing has moved for too long."""
        self._position = position or self._position
        now = (self._position.lsn if self._position else None, self._fetched())
        if now != self._last:
            self._last, self._moved_at = now, self._clock()
        elif self._clock() - self._moved_at > self._patience_s:
            raise InstanceTimeout(
                f"the recovery has not moved for {self._patience_s:g} s (it is at {now[0]}); "
                f"the log ends with: {last_log_lines(self._instance.scratch)}"
            )

    def followed(self, outcome: Outcome) -> Followed:
        ended = self._clock() - self._instance.started
        return Followed(outcome, self._position, self._consistent_s, ended)

    def ended(self) -> Followed:
        """The server is gone: as it was told to at the target, or for a reason to raise."""
        status = self._instance.process.returncode
        words = last_log_lines(self._instance.scratch)
        if status == 0 and _SHUT_DOWN_AT_TARGET in words:
            return self.followed(Outcome.SHUT_DOWN)
        raise why_replay_ended(self._instance, f"exit status {status}")


def replay_position(connection: psycopg.Connection[TupleRow]) -> ReplayPosition:
    """After the recovery this is where it ended, as long as the server runs."""
    row = fetch_one(connection, _POSITION)
    commit: datetime | None = row["last_commit"]
    return ReplayPosition(
        lsn=Lsn.parse(row["lsn"]),
        last_commit=commit and commit.astimezone(UTC),
        in_recovery=row["in_recovery"],
        paused=row["pause_state"] == "paused",
    )


def why_replay_ended(instance: Instance, how: str) -> PgkeepError:
    """As why_it_ended, and of what is not short of room or parts, how the target was missed."""
    error = why_it_ended(instance, how)
    if type(error) is not InstanceNotStarted:
        return error
    found = (kind for words, kind in _WHY if words in error.fact)
    return next(found, InstanceNotStarted)(error.fact)


def _connected(instance: Instance) -> psycopg.Connection[TupleRow] | None:
    try:
        return connect_instance(instance, _DATABASE)
    except Unavailable:
        return None


# Both positions stay what they were at the end of recovery (functions-admin, Recovery Control).
_POSITION: Final[LiteralString] = """
SELECT coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::text AS lsn,
       pg_catalog.pg_last_xact_replay_timestamp() AS last_commit,
       pg_catalog.pg_is_in_recovery() AS in_recovery,
       CASE WHEN pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_get_wal_replay_pause_state() END AS pause_state
"""
