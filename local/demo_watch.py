"""What the demo waits for, and where it looks: over HTTP as any caller, for progress also into
the catalogue. Every wait ends: with what was awaited, a failed job, a dead program, or the time.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from local.configuration import CLUSTER, FULL_SCHEDULE
from local.demo_client import call
from local.demo_progress import Step
from local.processes import wait_until
from local.stack import Edges, Servers
from shared import adapters
from shared.catalogue.postgres_catalogue import PostgresCatalogue
from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.cluster import cluster_name
from shared.domain.job import JobProgress, JobState, JobVerb
from shared.domain.schedule import latest_tick, scheduled_job_id
from shared.errors import JobNotFound, Refused, Unavailable
from shared.repository.backups import StoredBackup, read_backup
from shared.repository.blob_store import BlobStore
from shared.repository.documents import BackupDocument, DrillReport
from shared.repository.layout import BackupRef
from shared.repository.proofs import newest_verification
from shared.settings import Settings
from shared.settings import load as load_settings

BACKUP_S = 180.0
VERIFY_S = 120.0
DRILL_S = 240.0
_RECORD_S = 30.0
_MIB = 2**20

Listed = dict[str, Any]
T = TypeVar("T")


class DemoJobFailed(Refused):
    """A job of the demo ended without success."""

    code = "demo-job-failed"
    hint = "worker.log in the demo's folder has the story."


class DemoTimedOut(Unavailable):
    """Something the demo waits for did not come."""

    code = "demo-timed-out"
    hint = "functions.log and worker.log in the demo's folder tell what happened meanwhile."


@dataclass(frozen=True, slots=True)
class Stage:
    """The running product, seen from outside."""

    edges: Edges
    settings: Settings
    catalogue: PostgresCatalogue

    @classmethod
    def of(cls, servers: Servers, edges: Edges) -> "Stage":
        settings = load_settings(servers.config, {})
        dsn = settings.catalogue.dsn.get_secret_value() if settings.catalogue else ""
        return cls(edges, settings, PostgresCatalogue(dsn))

    def ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        return call(self.edges.url, self.edges.token(), method, path, body)

    def read_backup(self, label: str) -> BackupDocument:
        """From the repository: the catalogue is only its index."""
        return self._stored(label).document

    def links_remembered(self, label: str) -> int:
        """How many ancestors the newest verification did not read again, proved as they were."""
        pinned = adapters.pinned_keys(self.settings.keys)
        report = newest_verification(self._store(), self._stored(label), pinned)
        return sum(link.remembered for link in report.chain) if report else 0

    def _stored(self, label: str) -> StoredBackup:
        ref = BackupRef(cluster_name(CLUSTER), BackupLabel.parse(label))
        return read_backup(self._store(), ref, adapters.pinned_keys(self.settings.keys))

    def _store(self) -> BlobStore:
        return adapters.blob_store(self.settings.repository, threads=1)


def scheduled_full() -> UUID:
    """The job for the newest tick, which is due at once: no backup was ever made."""
    tick = latest_tick(FULL_SCHEDULE, datetime.now(UTC))
    return scheduled_job_id(cluster_name(CLUSTER), BackupKind.FULL, tick)


def ask_for_incremental(stage: Stage) -> UUID:
    """The job that the function app accepted."""
    asked = {"cluster": CLUSTER, "kind": BackupKind.INCREMENTAL.value}
    return UUID(stage.ask("POST", "/api/backups", asked)["job_id"])


def await_backup(stage: Stage, step: Step, job_id: UUID) -> str:
    """The label of what the job has committed. Raises DemoJobFailed."""

    def look() -> str | None:
        try:
            progress = stage.catalogue.job(job_id).progress
        except JobNotFound:
            return None
        _show(step, progress)
        if progress.finished is None:
            return None
        if progress.state is JobState.FAILED:
            raise DemoJobFailed(f"{progress.finished.error_code}: {progress.finished.error_fact}")
        return progress.finished.result

    return await_result(stage, look, BACKUP_S, "a finished backup")


def await_verification(stage: Stage, step: Step, label: str) -> Listed:
    """The catalogue's entry once a deep verification has an opinion."""

    def look() -> Listed | None:
        for job in stage.catalogue.running_jobs():
            if job.verb is JobVerb.VERIFY:
                _show(step, job.progress)
        listed = _listed(stage, label)
        decided = listed and (listed["verified_at"] or listed["verification_failed_at"])
        return listed if decided else None

    listed = await_result(stage, look, VERIFY_S, "a deep verification")
    if not listed["verified"]:
        raise DemoJobFailed(f"the verification of {label} found damage: {listed['findings']}")
    return listed


def await_drill(stage: Stage, step: Step, label: str, *, latest: bool = False) -> DrillReport:
    """Ask for a drill, to the end of the backup or of the WAL, and wait for its signed report."""
    target = {"target": "latest"} if latest else {}
    accepted = stage.ask("POST", "/api/drills", {"cluster": CLUSTER, "label": label, **target})

    def look() -> DrillReport | None:
        status = stage.ask("GET", f"/api/drills/{accepted['job_id']}")
        step.update(status["done_bytes"], status["total_bytes"], status["state"])
        if status["state"] == JobState.FAILED:
            raise DemoJobFailed(f"{status['error_code']}: {status['error_fact']}")
        report = status["report"]
        return DrillReport.model_validate_json(json.dumps(report)) if report else None

    return await_result(stage, look, DRILL_S, "the report of the drill")


def await_proof(stage: Stage, label: str) -> Listed:
    """The catalogue's entry once it knows of the drill."""

    def look() -> Listed | None:
        listed = _listed(stage, label)
        return listed if listed and (listed["proven_at"] or listed["drill_failed_at"]) else None

    return await_result(stage, look, _RECORD_S, "the drill in the catalogue")


def _listed(stage: Stage, label: str) -> Listed | None:
    backups: list[Listed] = stage.ask("GET", f"/api/backups?cluster={CLUSTER}")["backups"]
    return next((backup for backup in backups if backup["label"] == label), None)


def _show(step: Step, progress: JobProgress) -> None:
    done, total = progress.done_bytes, progress.total_bytes
    step.update(done, total, f"{done // _MIB} MiB")


def await_result(stage: Stage, look: Callable[[], T | None], seconds: float, what: str) -> T:
    """The first result of `look` that is not None. Raises DemoTimedOut, PartFailed."""
    found: list[T] = []

    def try_once() -> bool:
        stage.edges.check()
        result = look()
        found.extend([] if result is None else [result])
        return bool(found)

    if not wait_until(try_once, seconds, every=0.25):
        raise DemoTimedOut(f"{what} did not come in {seconds:g} s")
    return found[0]
