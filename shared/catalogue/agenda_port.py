"""The port to the agenda: whose turn it is, and what became of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.domain.agenda import AgendaChanges, AgendaEntry, Key
from shared.domain.cluster import ClusterName
from shared.domain.dispatch_plan import ActiveJob
from shared.domain.schedule import Tick
from shared.jobs.messages import AnyJob


@dataclass(frozen=True, slots=True)
class ServedTick:
    """What was decided of an entry as it was read. Without a `tick` it only moves on.

    Without a `job`, `passed` says why there is none.
    """

    before: AgendaEntry
    after: AgendaEntry
    tick: Tick | None = None
    job: AnyJob | None = None
    passed: str | None = None

    @property
    def due(self) -> datetime | None:
        return None if self.tick is None else self.tick.due


@dataclass(frozen=True, slots=True)
class NewestBackups:
    """Of one cluster: the newest backup, and the label of the newest verified one, if any."""

    cluster: ClusterName
    label: str
    digest: str
    verified_label: str | None


class Agenda(Protocol):
    """Batches are one transaction each; what is given comes back in no order unless it is said."""

    def agenda_digest(self) -> str | None:
        """Of the schedules that the agenda follows; None before it was ever made."""
        ...

    def agenda(self, cluster: ClusterName | None = None) -> Sequence[AgendaEntry]:
        """Every entry, by its next time."""
        ...

    def change_agenda(self, changes: AgendaChanges, digest: str) -> None:
        """What was served since `changes` were thought of stays served."""
        ...

    def due_entries(self, now: datetime, limit: int) -> Sequence[AgendaEntry]:
        """Those whose time has come, the oldest first, at no cost for the others.

        At most `limit` of each kind, so that a backlog of one kind never hides another.
        """
        ...

    def often_skipped(self, times: int) -> Sequence[AgendaEntry]:
        """Entries of which at least so many ticks in a row were passed over."""
        ...

    def active_jobs(self) -> Sequence[ActiveJob]:
        """Asked for or running, whoever asked."""
        ...

    def serve(self, served: Sequence[ServedTick], now: datetime) -> set[Key]:
        """Move entries on and request their jobs; the keys of those whose tick was served by this.

        An entry that somebody else has moved since it was read stays as it is, and so does a tick
        that was ever served before.
        """
        ...

    def newest_backups(self, clusters: Iterable[ClusterName]) -> Sequence[NewestBackups]:
        """Of those that have any."""
        ...
