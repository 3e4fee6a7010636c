"""Jobs of a catalogue in memory: from request to end, by the pure rules of shared.domain.job."""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from uuid import UUID

from shared.catalogue.job_ledger import CLAIM_AT_ONCE, CLAIM_LAPSES
from shared.catalogue.job_recovery import LOOKS_ARE_UNBROKEN, PRUNE_AT_ONCE
from shared.catalogue.ports import JobRecord
from shared.domain.cluster import ClusterName
from shared.domain.dispatch_plan import ActiveJob, kind_of
from shared.domain.job import JobProgress, JobReport, JobState, JobVerb, fold
from shared.domain.schedule import ScheduleKind
from shared.errors import CatalogueValueRefused, JobNotFound, MessageInvalid, RequestConflict
from shared.jobs.messages import AnyJob, JobEvent

_ACTIVE = (JobState.REQUESTED, JobState.RUNNING)
_Place = tuple[datetime, UUID]
_Duty = tuple[ClusterName, JobVerb]


class MemoryJobs:
    """See shared.catalogue.ports.JobLedger and JobRecovery for the contract."""

    def __init__(self) -> None:
        super().__init__()
        self._jobs: dict[UUID, JobRecord] = {}
        self._events: dict[UUID, dict[str, JobReport]] = {}
        self._claims: dict[UUID, datetime] = {}
        self._unsent: dict[UUID, None] = {}
        self._in_state: dict[JobState, dict[UUID, None]] = {state: {} for state in JobState}
        self._created: list[_Place] = []
        self._created_of: dict[ClusterName, list[_Place]] = defaultdict(list)
        self._ended: dict[_Duty, list[_Place]] = defaultdict(list)
        self._failing: set[_Duty] = set()
        self._retries: dict[UUID, set[UUID]] = defaultdict(set)
        self._listening: tuple[datetime, datetime | None] | None = None

    @property
    def busy(self) -> bool:
        """Whether any job is not over; of the simulation, no part of the port."""
        return any(self._in_state[state] for state in _ACTIVE)

    def request(self, job: AnyJob, now: datetime) -> bool:
        known = self._made(job, now)
        if known.request is None and (known.cluster, known.verb) == (job.cluster, job.verb):
            self._keep(replace(known, request=job, requested_at=now))
            if known.sent_at is None:
                self._unsent[job.job_id] = None
            return True
        if not job.asks_the_same(known.request):
            raise RequestConflict(f"job {job.job_id} was made by another request")
        return False

    def claim_unsent(self, now: datetime) -> Sequence[AnyJob]:
        lapsed = now - CLAIM_LAPSES
        free = (
            job_id for job_id in self._unsent
            if job_id not in self._claims or self._claims[job_id] < lapsed
        )  # fmt: skip
        claimed = list(islice(free, CLAIM_AT_ONCE))
        self._claims.update(dict.fromkeys(claimed, now))
        return [job for one in claimed if (job := self._jobs[one].request) is not None]

    def mark_sent(self, job_id: UUID, now: datetime) -> None:
        if job_id in self._jobs:
            self._keep(replace(self._jobs[job_id], sent_at=now))
            self._unsent.pop(job_id, None)

    def send_again(self, job_id: UUID, *, quiet_since: datetime) -> bool:
        job = self._jobs.get(job_id)
        if job is None or job.sent_at is None or job.sent_at >= quiet_since:
            return False
        if job.received_at is not None and job.received_at >= quiet_since:
            return False
        self._claims.pop(job_id, None)
        self._keep(replace(job, sent_at=None))
        if job.request is not None:
            self._unsent[job_id] = None
        return True

    def record_event(self, event: JobEvent, now: datetime) -> JobRecord:
        text, report = storable(event.model_dump_json()), event.report()
        job = self._made(event, now)
        if (job.cluster, job.verb) != (event.cluster, event.verb):
            raise MessageInvalid(
                f"job {event.job_id} is a {job.verb} of {job.cluster}, "
                f"not a {event.verb} of {event.cluster}"
            )
        events = self._events.setdefault(event.job_id, {})
        if text not in events:
            events[text] = report
            self._keep(_advanced(job, report, now))
        return self._jobs[event.job_id]

    def job(self, job_id: UUID) -> JobRecord:
        if job_id not in self._jobs:
            raise JobNotFound(f"there is no job {job_id}")
        return self._jobs[job_id]

    def jobs_of(self, job_ids: Collection[UUID]) -> Mapping[UUID, JobRecord]:
        return {one: self._jobs[one] for one in job_ids if one in self._jobs}

    def jobs(
        self,
        cluster: ClusterName | None = None,
        state: JobState | None = None,
        *,
        limit: int,
        before: UUID | None = None,
    ) -> Sequence[JobRecord]:
        places = self._created if cluster is None else self._created_of.get(cluster, [])
        if state in _ACTIVE:  # few, where all may be many
            active = (self._jobs[one] for one in self._in_state[state])
            places = sorted(_place(one) for one in active if cluster in {None, one.cluster})
        if before is not None:
            last = self._jobs.get(before)
            places = places[: bisect_left(places, _place(last))] if last else []
        newest_first = (self._jobs[job_id] for _, job_id in reversed(places))
        wanted = (one for one in newest_first if state in {None, one.progress.state})
        return list(islice(wanted, limit))

    def running_jobs(self) -> Sequence[JobRecord]:
        return sorted(self._those(JobState.RUNNING), key=_received)

    def active_jobs(self) -> Sequence[ActiveJob]:
        return [
            ActiveJob(job.cluster, job.verb, _kind(job))
            for one in _ACTIVE
            for job in self._those(one)
        ]

    def job_reports(self, job_id: UUID) -> Sequence[JobReport]:
        return sorted(self._events.get(job_id, {}).values(), key=lambda report: report.at)

    def listen(self, now: datetime, *, hears: bool) -> datetime:
        since, heard_at = self._listening or (now, None)
        unbroken = heard_at is not None and heard_at >= now - LOOKS_ARE_UNBROKEN
        since = since if hears and unbroken else now
        self._listening = (since, max(heard_at or now, now) if hears else None)
        return since

    def silent_jobs(self, received_before: datetime) -> Sequence[JobRecord]:
        return [one for one in self.running_jobs() if _received(one) < received_before]

    def never_taken(self, sent_before: datetime) -> Sequence[JobRecord]:
        waiting = self._those(JobState.REQUESTED)
        sent = [(job.sent_at, job) for job in waiting if job.sent_at and job.sent_at < sent_before]
        return [job for _, job in sorted(sent, key=lambda one: one[0])]

    def give_up(
        self, end: JobEvent, retry: AnyJob | None, *, quiet_since: datetime, now: datetime
    ) -> bool:
        job = self.job(end.job_id)
        news = [time for time in (job.received_at, job.sent_at) if time is not None]
        if job.progress.state.terminal or any(time >= quiet_since for time in news):
            return False
        self.record_event(end, now)
        if retry is not None and self.request(retry, now):
            made = self._jobs[retry.job_id]
            self._keep(replace(made, retry_of=job.first, retry=job.retry + 1))
            self._retries[job.first].add(retry.job_id)
        return True

    def failed_jobs(self) -> Sequence[JobRecord]:
        last = [self._jobs[self._ended[duty][-1][1]] for duty in sorted(self._failing)]
        return [job for job in last if not self._is_retried(job)]

    def prune_jobs(self, before: datetime) -> int:
        old = bisect_left(self._created, before, key=lambda place: place[0])
        needed = self._named_by_ticks() if old else set()
        over = (
            job_id
            for _, job_id in self._created[:old]
            if job_id not in needed and _ended_before(self._jobs[job_id], before)
        )
        gone = list(islice(over, PRUNE_AT_ONCE))
        for job_id in gone:
            self._forget_job(job_id)
        return len(gone)

    def _named_by_ticks(self) -> set[UUID]:
        return set()

    def _is_retried(self, job: JobRecord) -> bool:
        again = (self._jobs[one] for one in self._retries.get(job.first, ()))
        return any(one.progress.state in _ACTIVE for one in again)

    def _those(self, state: JobState) -> list[JobRecord]:
        return [self._jobs[job_id] for job_id in self._in_state[state]]

    def _made(self, asked: AnyJob | JobEvent, now: datetime) -> JobRecord:
        """A job without anything known of it yet, unless it exists: events may come first."""
        if asked.job_id not in self._jobs:
            cluster = ClusterName(asked.cluster)
            made = JobRecord(
                asked.job_id, cluster, asked.verb, None, None, None, JobProgress(), created_at=now
            )
            insort(self._created, (now, asked.job_id))
            insort(self._created_of[cluster], (now, asked.job_id))
            self._keep(made)
        return self._jobs[asked.job_id]

    def _keep(self, job: JobRecord) -> None:
        before = self._jobs.get(job.job_id)
        if before is not None and before.progress.state is not job.progress.state:
            del self._in_state[before.progress.state][job.job_id]
        self._in_state[job.progress.state][job.job_id] = None
        if before is None or before.ended_at != job.ended_at:
            self._relist(before, job)
        self._jobs[job.job_id] = job
        if job.ended_at is not None or (before is not None and before.ended_at is not None):
            self._note_failing((job.cluster, job.verb))

    def _relist(self, before: JobRecord | None, after: JobRecord | None) -> None:
        """Among those that ended, by when they did."""
        for job in (before, after):
            if job is not None and job.ended_at is not None:
                places = self._ended[job.cluster, job.verb]
                place = (job.ended_at, job.job_id)
                if job is after:
                    insort(places, place)
                else:
                    del places[bisect_left(places, place)]

    def _note_failing(self, duty: _Duty) -> None:
        places = self._ended[duty]
        state = self._jobs[places[-1][1]].progress.state if places else None
        if state is JobState.FAILED:
            self._failing.add(duty)
        else:
            self._failing.discard(duty)

    def _forget_job(self, job_id: UUID) -> None:
        job = self._jobs.pop(job_id)
        self._relist(job, None)
        self._note_failing((job.cluster, job.verb))
        for places in (self._created, self._created_of[job.cluster]):
            del places[bisect_left(places, _place(job))]
        del self._in_state[job.progress.state][job_id]
        self._events.pop(job_id, None)
        self._claims.pop(job_id, None)
        self._unsent.pop(job_id, None)
        self._retries[job.first].discard(job_id)


def storable(text: str) -> str:
    """Raises CatalogueValueRefused, as PostgreSQL does: no text of it holds a null byte."""
    if "\\u0000" in text:
        raise CatalogueValueRefused("the catalogue refuses a value: it holds a null byte")
    return text


def _advanced(job: JobRecord, report: JobReport, now: datetime) -> JobRecord:
    progress = fold(job.progress, report)
    ended_at = job.ended_at if progress.state is job.progress.state else now
    return replace(
        job,
        progress=progress,
        received_at=job.received_at if progress.has_overtaken(report) else now,
        ended_at=ended_at if progress.state.terminal else None,
    )


def _ended_before(job: JobRecord, before: datetime) -> bool:
    return job.ended_at is not None and job.ended_at < before


def _place(job: JobRecord) -> _Place:
    if job.created_at is None:
        raise AssertionError("every row is made at some time")
    return job.created_at, job.job_id


def _received(job: JobRecord) -> datetime:
    if job.received_at is None:
        raise AssertionError("a job that runs was heard of")
    return job.received_at


def _kind(job: JobRecord) -> ScheduleKind | None:
    kind, level, whole_chain = (
        getattr(job.request, name, None) for name in ("kind", "level", "whole_chain")
    )
    return kind_of(job.verb, kind, level, whole_chain=bool(whole_chain))
