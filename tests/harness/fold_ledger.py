"""Jobs in memory, by the pure rules alone: what a catalogue must equal, without its SQL."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from shared.catalogue.job_recovery import LOOKS_ARE_UNBROKEN
from shared.catalogue.ports import JobRecord
from shared.domain.cluster import cluster_name
from shared.domain.job import JobProgress, JobReport, JobState, fold
from shared.jobs.messages import AnyJob, JobEvent


@dataclass
class FoldLedger:
    """The part of shared.catalogue.ports that `recover_lost` and the outbox need."""

    records: dict[UUID, JobRecord] = field(default_factory=dict)
    events: dict[UUID, set[str]] = field(default_factory=dict)
    since: datetime | None = None
    heard_at: datetime | None = None

    def request(self, job: AnyJob, now: datetime) -> bool:
        known = self._made(job, now)
        if known.request is None:
            self.records[job.job_id] = replace(known, request=job, requested_at=now)
        return known.request is None

    def claim_unsent(self, now: datetime) -> Sequence[AnyJob]:
        """Claims lapse at once: nobody else is there who could send it meanwhile."""
        del now
        waiting = [one for one in self.records.values() if one.sent_at is None]
        return [one.request for one in waiting if one.request is not None]

    def mark_sent(self, job_id: UUID, now: datetime) -> None:
        self.records[job_id] = replace(self.records[job_id], sent_at=now)

    def send_again(self, job_id: UUID, *, quiet_since: datetime) -> bool:
        job = self.records[job_id]
        if any(time and time >= quiet_since for time in (job.sent_at, job.received_at)):
            return False
        self.records[job_id] = replace(job, sent_at=None)
        return job.sent_at is not None

    def record_event(self, event: JobEvent, now: datetime) -> JobRecord:
        known = self._made(event, now)
        text, report = event.model_dump_json(), event.report()
        if text not in self.events.setdefault(event.job_id, set()):
            self.events[event.job_id].add(text)
            progress = fold(known.progress, report)
            overtaken = progress.has_overtaken(report)
            received_at = known.received_at if overtaken else now
            self.records[event.job_id] = replace(known, progress=progress, received_at=received_at)
        return self.records[event.job_id]

    def job(self, job_id: UUID) -> JobRecord:
        return self.records[job_id]

    def jobs(self, *, limit: int) -> Sequence[JobRecord]:
        return list(self.records.values())[:limit]

    def job_reports(self, job_id: UUID) -> Sequence[JobReport]:
        texts = self.events.get(job_id, set())
        return [JobEvent.model_validate_json(text).report() for text in texts]

    def running_jobs(self) -> Sequence[JobRecord]:
        return self._in(JobState.RUNNING)

    def silent_jobs(self, received_before: datetime) -> Sequence[JobRecord]:
        running = self._in(JobState.RUNNING)
        return [one for one in running if one.received_at and one.received_at < received_before]

    def never_taken(self, sent_before: datetime) -> Sequence[JobRecord]:
        waiting = self._in(JobState.REQUESTED)
        return [one for one in waiting if one.sent_at and one.sent_at < sent_before]

    def listen(self, now: datetime, *, hears: bool) -> datetime:
        unbroken = self.heard_at is not None and self.heard_at >= now - LOOKS_ARE_UNBROKEN
        self.since = self.since if hears and unbroken and self.since else now
        self.heard_at = now if hears else None
        return self.since

    def give_up(
        self, end: JobEvent, retry: AnyJob | None, *, quiet_since: datetime, now: datetime
    ) -> bool:
        job = self.records[end.job_id]
        news = [time for time in (job.received_at, job.sent_at) if time is not None]
        if job.progress.state.terminal or any(time >= quiet_since for time in news):
            return False
        self.record_event(end, now)
        if retry is not None and self.request(retry, now):
            made = self.records[retry.job_id]
            self.records[retry.job_id] = replace(made, retry_of=job.first, retry=job.retry + 1)
        return True

    def _made(self, asked: AnyJob | JobEvent, now: datetime) -> JobRecord:
        made = JobRecord(
            job_id=asked.job_id,
            cluster=cluster_name(asked.cluster),
            verb=asked.verb,
            request=None,
            requested_at=None,
            sent_at=None,
            progress=JobProgress(),
            created_at=now,
        )
        return self.records.setdefault(asked.job_id, made)

    def _in(self, state: JobState) -> list[JobRecord]:
        return [one for one in self.records.values() if one.progress.state is state]
