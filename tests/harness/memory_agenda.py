"""The agenda of a catalogue in memory: entries, what comes up when, and the ticks that were served.

What comes up is kept in a heap, as the database keeps an index: a look costs what is due.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from heapq import heappop, heappush
from itertools import count
from uuid import UUID

from shared.catalogue.agenda_port import NewestBackups, ServedTick
from shared.domain.agenda import AgendaChanges, AgendaEntry, Key
from shared.domain.cluster import ClusterName
from shared.domain.schedule import ScheduleKind
from tests.harness.memory_facts import MemoryFacts
from tests.harness.memory_jobs import MemoryJobs


class MemoryAgenda(MemoryJobs, MemoryFacts):
    """See shared.catalogue.agenda_port for the contract.

    `ticks` holds for each served tick when it was, and its job or why there is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._entries: dict[Key, AgendaEntry] = {}
        self._upcoming: list[tuple[datetime, ClusterName, str, int, AgendaEntry]] = []
        self._serial = count()
        self._skipped: set[Key] = set()
        self._source: str | None = None
        self.ticks: dict[tuple[Key, datetime], ServedTick] = {}

    def agenda_digest(self) -> str | None:
        return self._source

    def agenda(self, cluster: ClusterName | None = None) -> Sequence[AgendaEntry]:
        found = [one for one in self._entries.values() if cluster in {None, one.cluster}]
        return sorted(found, key=_turn)

    def change_agenda(self, changes: AgendaChanges, digest: str) -> None:
        for entry in changes.put:
            known = self._entries.get(entry.key)
            self._set(entry if known is None else replace(entry, served=_later(known, entry)))
        for key in changes.remove:
            self._entries.pop(key, None)
            self._skipped.discard(key)
        self._source = digest

    def due_entries(self, now: datetime, limit: int) -> Sequence[AgendaEntry]:
        found: dict[Key, AgendaEntry] = {}
        while self._upcoming and self._upcoming[0][0] <= now:
            entry = heappop(self._upcoming)[-1]
            if self._entries.get(entry.key) is entry:  # others were moved on since
                found[entry.key] = entry
        for entry in found.values():
            self._push(entry)
        of_kind: Counter[ScheduleKind] = Counter()
        return [entry for entry in found.values() if _counted(of_kind, entry) <= limit]

    def often_skipped(self, times: int) -> Sequence[AgendaEntry]:
        found = [self._entries[key] for key in self._skipped if self._entries[key].skipped >= times]
        return sorted(found, key=lambda one: (one.cluster, one.kind.value))

    def serve(self, served: Sequence[ServedTick], now: datetime) -> set[Key]:
        moved = [one for one in served if self._move(one)]
        new: set[Key] = set()
        for one in moved:
            if one.tick is None or (one.before.key, one.tick.due) in self.ticks:
                continue
            self.ticks[one.before.key, one.tick.due] = one
            new.add(one.before.key)
            if one.job is not None and one.job.job_id not in self._jobs:
                self.request(one.job, now)
        return new

    def newest_backups(self, clusters: Iterable[ClusterName]) -> Sequence[NewestBackups]:
        found = []
        for cluster in dict.fromkeys(clusters):
            rows = self._of(cluster)
            if rows:
                good = (row["label"] for row in reversed(rows) if self._facts(row).verified)
                newest = rows[-1]
                found.append(
                    NewestBackups(cluster, newest["label"], newest["digest"], next(good, None))
                )
        return found

    def next_turn(self) -> datetime | None:
        """When something comes up next; of the simulation, no part of the port."""
        while self._upcoming:
            entry = self._upcoming[0][-1]
            if self._entries.get(entry.key) is entry:
                return entry.next_at
            heappop(self._upcoming)
        return None

    def prune_jobs(self, before: datetime) -> int:
        newest: dict[Key, datetime] = {}
        for key, due in self.ticks:
            newest[key] = max(due, newest.get(key, due))
        for key, due in [one for one in self.ticks if one[1] < before and one[1] < newest[one[0]]]:
            del self.ticks[key, due]
        return super().prune_jobs(before)

    def _named_by_ticks(self) -> set[UUID]:
        return {one.job.job_id for one in self.ticks.values() if one.job is not None}

    def _move(self, one: ServedTick) -> bool:
        known = self._entries.get(one.before.key)
        if known is None or _place(known) != _place(one.before):
            return False
        self._set(one.after)
        return True

    def _set(self, entry: AgendaEntry) -> None:
        self._entries[entry.key] = entry
        self._push(entry)
        if entry.skipped:
            self._skipped.add(entry.key)
        else:
            self._skipped.discard(entry.key)

    def _push(self, entry: AgendaEntry) -> None:
        heappush(self._upcoming, (*_turn(entry), next(self._serial), entry))


def _place(entry: AgendaEntry) -> tuple[object, ...]:
    return entry.cron, entry.delay, entry.next_at, entry.served


def _later(known: AgendaEntry, entry: AgendaEntry) -> datetime | None:
    return max(filter(None, (known.served, entry.served)), default=None)


def _counted(of_kind: Counter[ScheduleKind], entry: AgendaEntry) -> int:
    of_kind[entry.kind] += 1
    return of_kind[entry.kind]


def _turn(entry: AgendaEntry) -> tuple[datetime, ClusterName, str]:
    return entry.next_at, entry.cluster, entry.kind.value
