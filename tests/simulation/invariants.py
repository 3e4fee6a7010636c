"""What must hold whatever happens: I1 to I10 of the design, as far as a control plane can break
them.

Some are checked when the thing happens, some after each step of the simulation, and all that needs
a look at the whole at the end of each day, after a reconciliation. A broken one is a sentence; the
simulation goes on, and the test fails at its end.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Final
from uuid import UUID

from shared.catalogue.ports import JobRecord
from shared.domain.agenda import Key
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingCode
from shared.domain.job import JobState
from shared.domain.schedule import ticks
from tests.simulation.account import Account
from tests.simulation.app import FunctionApp
from tests.simulation.engine import hours
from tests.simulation.promise_rules import PromiseRules
from tests.simulation.repository_rules import Reach, RepositoryRules
from tests.simulation.truth import TrueBackup
from tests.simulation.world import World

CANARY: Final = "canary-5d1f0c9a"
# A job that is asked for once more each time its worker dies is over within this.
_OVER_WITHIN: Final = hours(30)
_TOLD: Final = 50
_ALL: Final = 1_000_000_000
Say = Iterator[str]


class Invariants:
    """`found` counts findings by code, as they were seen open at the ends of days."""

    def __init__(self, world: World, app: FunctionApp, account: Account) -> None:
        self._world, self._app = world, app
        self._repository = RepositoryRules(world)
        self._promises = PromiseRules(world, account)
        self.broken: list[str] = []
        self.found: Counter[str] = Counter()
        self._seen_ticks: dict[Key, datetime] = {}

    def on_message(self, body: str) -> None:
        """I7: what is secret leaves in no message."""
        if CANARY in body:
            self._say(["I7 a message holds a password"])

    def on_commit(self, backup: TrueBackup) -> None:
        """I8: of two backups of a cluster that overlap, at most one is committed."""
        others = self._world.truth.backups[backup.ref.cluster][:-1]
        self._say(
            f"I8 {backup.ref} and {other.ref} ran at one time, and both were committed"
            for other in others[-3:]
            if other.ended > backup.began
        )

    def before_expiry(self, cluster: str) -> Reach:
        return self._repository.reach(ClusterName(cluster))

    def after_expiry(self, cluster: str, before: object, now: datetime) -> None:
        """I4: whatever the run did, and wherever it died."""
        assert isinstance(before, Reach)
        self._say(self._repository.after_expiry(ClusterName(cluster), before, now))

    def after_step(self) -> None:
        """Cheap ones: of a tick there is one job (D02), and nothing is said twice."""
        asked = self._world.truth.newly_asked
        while asked:
            key = asked.pop()
            jobs = self._world.truth.asked[key]
            if len(jobs) > 1:
                self._say([f"D02 the tick {' '.join(key)} has {len(jobs)} jobs"])

    def at_the_end_of_a_day(self) -> None:
        for recorded in self._world.catalogue.findings():
            self.found[recorded.finding.code.value] += 1
            if not recorded.finding.action or not recorded.finding.fact:
                self._say([f"I10 {recorded.finding} says not what to do"])
        self._say(self._repository.of_parts())
        self._say(self._repository.of_names())
        self._say(self._of_jobs())
        self._say(self._promises.of_promises())
        self._say(self._promises.of_account())
        for cluster in self._world.clusters:
            self._say(self._of_ticks(cluster))

    def at_the_end(self) -> None:
        """After two days without trouble: nothing is left over, and all can be made anew."""
        self.at_the_end_of_a_day()
        self._say(self._repository.of_content())
        self._say(self._of_left_over_jobs())
        self._say(self._of_failures())

    def _of_left_over_jobs(self) -> Say:
        old = self._world.engine.now - hours(6)
        for job in self._world.catalogue.jobs(limit=_ALL):
            since = job.requested_at or job.created_at
            if not job.progress.state.terminal and since is not None and since < old:
                yield f"I9 {job.verb} {job.job_id} of {job.cluster} never ended"

    def _of_failures(self) -> Say:
        """I10: where the last job of a kind has failed there is a finding, and only there."""
        last: dict[tuple[str, str], JobRecord] = {}
        for job in self._world.catalogue.jobs(limit=_ALL):
            known = last.get((job.cluster, job.verb.value))
            if job.ended_at and (known is None or _end(job) > _end(known)):
                last[job.cluster, job.verb.value] = job
        failing = {duty for duty, job in last.items() if job.progress.state is JobState.FAILED}
        told = {
            (one.cluster, one.finding.object)
            for one in self._world.catalogue.findings()
            if one.finding.code in {FindingCode.JOB_FAILED, FindingCode.JOB_LOST}
        }
        for duty in failing ^ told:
            yield f"I10 jobs of {duty}: failing is {duty in failing}, told is {duty in told}"

    def _say(self, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            if len(self.broken) < _TOLD:
                self.broken.append(f"{self._world.engine.now:%F %T} {sentence}")

    def _of_jobs(self) -> Say:
        """Whatever was asked for is over in time, well or not."""
        now = self._world.engine.now
        for state in (JobState.REQUESTED, JobState.RUNNING):
            for job in self._world.catalogue.jobs(state=state, limit=_ALL):
                since = job.requested_at or job.created_at
                if since is not None and now - since > _OVER_WITHIN:
                    yield f"I9 {job.verb} {job.job_id} of {job.cluster} is {state} since {since}"

    def _of_ticks(self, cluster: ClusterName) -> Say:
        """Each tick was served, or nothing was dispatched until the next one was due."""
        if not self._app.dispatched:
            return
        first = self._app.dispatched[0]
        for entry in self._world.catalogue.agenda(cluster):
            known = self._seen_ticks.get(entry.key, first)
            for due, after in pairwise(ticks(entry.cron, known)):
                if after + entry.delay > self._world.engine.now - hours(6):
                    break
                self._seen_ticks[entry.key] = due
                served = (entry.key, due) in self._world.catalogue.ticks
                if not served and self._was_dispatched(due + entry.delay, after + entry.delay):
                    yield f"S {cluster} {entry.kind}: the tick of {due:%F %R} was not served"

    def _was_dispatched(self, begin: datetime, end: datetime) -> bool:
        place = bisect_left(self._app.dispatched, begin)
        return place < len(self._app.dispatched) and self._app.dispatched[place] < end


def _end(job: JobRecord) -> tuple[datetime, UUID]:
    if job.ended_at is None:
        raise AssertionError(f"{job.job_id} has not ended")
    return job.ended_at, job.job_id
