"""The rules of shared.domain alone, over a fleet that is too large for everything else.

Real are the agenda and its ticks, the dispatch plan with its limits, the fold of a job's reports,
retention and the ages that are promised. There is no catalogue, no repository and no message: what
the rules would be told is made up. A year of 10,000 clusters takes minutes.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

from functions.freshness_watch import promises_of
from functions.timer_dispatch import wishes
from shared.domain.agenda import AgendaEntry, Key, follow
from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.backup_freshness import BackupAges, backup_findings
from shared.domain.cluster import ClusterName
from shared.domain.dispatch_plan import ActiveJob, DueTick, Limits, plan_dispatch, verb_of
from shared.domain.job import JobEventKind, JobReport, JobState, fold_all
from shared.domain.kept_backup import KeptBackup, RetentionPolicy
from shared.domain.lsn import Lsn
from shared.domain.retention import plan_retention
from shared.domain.schedule import ScheduleKind, Tick
from shared.settings import ClusterSettings, DirectoryRepository, Settings
from shared.settings.sections import Fleet
from tests.simulation.engine import BEGIN, days, hours, minutes

_STEP: Final = minutes(10)
_FAILS: Final = 0.02
_DAMAGED: Final = 0.01
_CHAIN_LIMIT: Final = 7
_SERVER_DOWN_DAYS: Final = 100
_APP_DOWN_DAYS: Final = 15


@dataclass(slots=True)
class _Member:
    """One cluster, as far as the rules want to know."""

    name: ClusterName
    backups: list[KeptBackup] = field(default_factory=list)
    down_until: datetime = BEGIN
    committed_at: datetime | None = None
    verified_at: datetime | None = None
    proven_at: datetime | None = None
    made: int = 0


@dataclass
class RulesOutcome:
    ticks: int = 0
    jobs: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    deleted: int = 0
    found: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


def fleet_of(clusters: int) -> Settings:
    """So many clusters with the default policy, each on a host of its own."""
    return Settings(
        profile="development",
        repository=DirectoryRepository(type="directory", path=Path("/nowhere")),
        fleet=Fleet(spread_minutes=180, per_account=max(16, clusters // 15)),
        cluster=tuple(
            ClusterSettings(name=f"c{number:05d}", dsn=f"host=h{number}")
            for number in range(clusters)
        ),
    )


class RulesAlone:
    """One fleet; `run` goes on for so many days and says what came of it."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self._members = {c.name: _Member(ClusterName(c.name)) for c in settings.cluster}
        self._promises = promises_of(settings.cluster[0])
        fleet = settings.fleet
        self._limits = Limits(fleet.per_host, fleet.per_account, lambda cluster: cluster)
        self._served: dict[Key, datetime] = {}
        self._serial = count()
        self.agenda: list[tuple[datetime, int, AgendaEntry]] = []
        self._running: list[tuple[datetime, int, Tick]] = []
        self._down_until = BEGIN
        self.outcome = RulesOutcome()
        for entry in follow(wishes(settings), {}, BEGIN).put:
            self.put(entry)

    def run(self, span: int) -> RulesOutcome:
        now, end, next_look = BEGIN, BEGIN + days(span), BEGIN + days(1)
        while now < end:
            now += _STEP
            self._go_wrong(now)
            self._finish(now)
            if now >= self._down_until:
                self._dispatch(now)
            if now >= next_look:
                self._look(now)
                next_look += days(1)
        return self.outcome

    def put(self, entry: AgendaEntry) -> None:
        heappush(self.agenda, (entry.next_at, next(self._serial), entry))

    def _dispatch(self, now: datetime) -> None:
        due = []
        while self.agenda and self.agenda[0][0] <= now:
            entry = heappop(self.agenda)[-1]
            tick = entry.tick_at(now)
            if tick is None:
                self.put(entry.once_more(now))
            else:
                due.append(DueTick(entry, tick))
        active = [ActiveJob(tick.cluster, verb_of(tick.kind)) for _, _, tick in self._running]
        plan = plan_dispatch(due, active, self._limits)
        for one in plan.start:
            self._serve(one)
            self._start(one.tick, now)
        for one, reason in plan.passed:
            self._serve(one)
            self.outcome.passed[reason.value] += 1
        for one in plan.waiting:
            self.put(one.entry)
        if len(self._running) > self._limits.per_account:
            self._say(now, f"{len(self._running)} jobs run at once")

    def _serve(self, one: DueTick) -> None:
        """D02: no tick twice, and none before one that was served already."""
        known = self._served.get(one.entry.key)
        if known is not None and one.tick.due <= known:
            self._say(one.tick.due, f"D02 {one.entry.key} is served again")
        self._served[one.entry.key] = one.tick.due
        self.outcome.ticks += 1
        self.put(one.entry.after(one.tick))

    def _start(self, tick: Tick, now: datetime) -> None:
        ends = now + minutes(4 * self._random.lognormvariate(0, 0.5))
        heappush(self._running, (ends, next(self._serial), tick))

    def _finish(self, now: datetime) -> None:
        while self._running and self._running[0][0] <= now:
            ends, _, tick = heappop(self._running)
            member = self._members[tick.cluster]
            fails = ends < member.down_until or self._random.random() < _FAILS
            progress = fold_all(
                (
                    JobReport(JobEventKind.FINISHED, 1, ends, succeeded=not fails),
                    JobReport(JobEventKind.STARTED, 1, ends - _STEP),
                )
            )
            self.outcome.jobs[progress.state.value] += 1
            if progress.state is JobState.SUCCEEDED:
                self._do(member, tick.kind, ends)

    def _do(self, member: _Member, kind: ScheduleKind, at: datetime) -> None:
        if kind.backup_kind is not None:
            self._back_up(member, kind.backup_kind, at)
        elif kind is ScheduleKind.EXPIRE:
            self._expire(member, at)
        elif kind.value.startswith("drill") and member.verified_at is not None:
            member.proven_at = at

    def _back_up(self, member: _Member, wanted: BackupKind, at: datetime) -> None:
        good = [one for one in member.backups if one.verified and not one.damaged]
        parent = good[-1] if good and wanted is BackupKind.INCREMENTAL else None
        if parent is not None and self._depth(member, parent) >= _CHAIN_LIMIT:
            parent = None
        kind = BackupKind.FULL if parent is None else BackupKind.INCREMENTAL
        label = BackupLabel.new(kind, at, self._random.choice).text
        damaged = self._random.random() < _DAMAGED
        member.made += 1
        member.backups.append(
            KeptBackup(
                label=label, kind=kind, at=at, timeline=1, start_lsn=Lsn(member.made << 24),
                digest=label, parent=None if parent is None else parent.label,
                verified=not damaged, damaged=damaged,
            )
        )  # fmt: skip
        member.committed_at = at
        member.verified_at = member.verified_at if damaged else at

    def _depth(self, member: _Member, backup: KeptBackup) -> int:
        by_label = {one.label: one for one in member.backups}
        depth = 0
        while backup.parent is not None:
            depth, backup = depth + 1, by_label[backup.parent]
        return depth

    def _expire(self, member: _Member, at: datetime) -> None:
        """I4: the floor stays, and so does whatever a backup that stays builds on."""
        plan = plan_retention(member.backups, RetentionPolicy(), at)
        gone = {one.label for one in plan.delete}
        had = any(one.good and one.kind is BackupKind.FULL for one in member.backups)
        member.backups = [one for one in member.backups if one.label not in gone]
        self.outcome.deleted += len(gone)
        labels = {one.label for one in member.backups}
        if had and not any(one.good and one.kind is BackupKind.FULL for one in member.backups):
            self._say(at, f"I4 {member.name} has no good full backup any more")
        if any(one.parent is not None and one.parent not in labels for one in member.backups):
            self._say(at, f"I4 {member.name} has a backup whose parent is gone")

    def _look(self, now: datetime) -> None:
        """What is too old is found, and nothing else."""
        allowed = self._promises.committed
        for member in self._members.values():
            ages = BackupAges(
                member.name, BEGIN, member.committed_at, member.verified_at, member.proven_at
            )
            codes = {one.code.value for one in backup_findings(ages, self._promises, now)}
            self.outcome.found.update(codes)
            late = allowed is not None and now - (member.committed_at or BEGIN) > allowed
            if late is not ("backup-overdue" in codes):
                self._say(now, f"P {member.name}: late is {late}, found is {sorted(codes)}")

    def _go_wrong(self, now: datetime) -> None:
        share = _STEP / days(1)
        if self._random.random() < share / _APP_DOWN_DAYS:
            self._down_until = now + hours(self._random.uniform(0.5, 30))
        expected = len(self._members) * share / _SERVER_DOWN_DAYS
        if self._random.random() < expected:
            names = list(self._members)
            member = self._members[self._random.choice(names)]
            member.down_until = now + timedelta(hours=self._random.uniform(1, 96))

    def _say(self, at: datetime, sentence: str) -> None:
        if len(self.outcome.broken) < 50:
            self.outcome.broken.append(f"{at:%F %T} {sentence}")
