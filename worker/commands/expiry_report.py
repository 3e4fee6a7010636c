"""The report of a run of `expire`: the same document for a dry run, which is not signed or kept."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from shared.domain.lsn import Lsn
from shared.domain.recovery_window import RecoveryWindow, recovery_windows
from shared.domain.wal_retention import WalNeeds
from shared.repository import layout
from shared.repository.expiry_documents import (
    ExpiredBackup,
    ExpiredWal,
    ExpiryReport,
    Remains,
    ReportedWindow,
    StayingBackup,
    Tombstone,
    WalStart,
)
from shared.repository.tombstones import believed_tombstones, named_tombstones
from shared.version import VERSION
from worker.commands.expiry_deletion import Deletion
from worker.commands.expiry_policy import reported
from worker.commands.expiry_remains import BackupRemains
from worker.commands.expiry_survey import Survey
from worker.commands.services import Services

# What a report tells at most, the newest first: a document holds 1 MiB.
_STAYING_TOLD: Final = 2000
_FOREIGN_TOLD: Final = 100


@dataclass(frozen=True, slots=True)
class DeadRun:
    """One that did not live to report; of its tombstones not every backup need be gone."""

    run: UUID
    tombstones: tuple[Tombstone, ...]


def compose_report(
    survey: Survey, done: Deletion, run: UUID, dead: Sequence[DeadRun]
) -> ExpiryReport:
    """Of the runs that died one may be an earlier delivery of this one."""
    there = {backup.label for backup in survey.backups}
    earlier = [stone for one in dead if one.run == run for stone in one.tombstones]
    labels = done.labels
    staying = [item for item in survey.plan.verdicts if item.backup.label not in labels]
    return ExpiryReport(
        id=run,
        cluster=survey.cluster,
        created_at=survey.at,
        plan=survey.plan.digest,
        policy=reported(survey.asked),
        settles=survey.policy != survey.asked,
        refused=survey.plan.refused,
        went=(*_buried(earlier, there), *_went(done)),
        staying=tuple(
            StayingBackup(
                label=item.backup.label,
                state=item.backup.state,
                bytes=item.backup.stored_bytes,
                reasons=item.reasons if item.keep else ("goes in a later run", *item.reasons),
            )
            for item in staying[-_STAYING_TOLD:]
        ),
        staying_count=len(staying),
        postponed=survey.plan.postponed,
        not_yet=tuple(done.not_yet),
        wal=ExpiredWal(
            files=done.wal_files,
            bytes=done.wal_bytes,
            before=tuple(_starts(survey, done.needs)),
        ),
        remains=tuple(map(_remains, survey.remains)),
        completed=tuple(one.run for one in dead if one.run != run),
        foreign=tuple(map(str, survey.foreign[:_FOREIGN_TOLD])),
        foreign_count=len(survey.foreign),
        freed_bytes=done.freed_bytes,
        windows_before=tuple(_windows(survey, None)),
        windows_after=tuple(_windows(survey, done)),
        tool=f"pgkeep {VERSION}",
    )


def report_of_dead_run(survey: Survey, dead: DeadRun) -> ExpiryReport:
    """What its tombstones tell of a run that nobody will ever hear of again."""
    there = {backup.label for backup in survey.backups}
    return ExpiryReport(
        id=dead.run,
        cluster=survey.cluster,
        created_at=max(stone.created_at for stone in dead.tombstones),
        plan=survey.plan.digest,
        went=tuple(_buried(dead.tombstones, there)),
        staying_count=len(there),
        freed_bytes=0,
        tool=f"pgkeep {VERSION}",
    )


def dead_runs(services: Services, survey: Survey) -> list[DeadRun]:
    """Runs with tombstones and without a report. Whoever holds the lease knows that they died."""
    prefix = layout.expiry_reports_prefix(survey.cluster)
    folders = services.store.list_folder(layout.EVIDENCE, prefix)
    reported = {name.rstrip("/") for name in folders}
    names = (
        name
        for name, run in named_tombstones(services.store, survey.cluster)
        if run not in reported
    )
    by_run: dict[UUID, list[Tombstone]] = {}
    for stone in believed_tombstones(services.store, names, services.pinned):
        by_run.setdefault(stone.run, []).append(stone)
    return [DeadRun(run, tuple(stones)) for run, stones in by_run.items()]


def _buried(tombstones: Iterable[Tombstone], there: Collection[str]) -> Iterator[ExpiredBackup]:
    for stone in tombstones:
        if stone.label not in there:
            yield ExpiredBackup(
                label=stone.label,
                document_digest=stone.document_digest,
                bytes=stone.bytes,
                reasons=stone.reasons,
            )


def _starts(survey: Survey, needs: WalNeeds) -> Iterator[WalStart]:
    """Of a timeline that nothing begins on any more, where its log ends."""
    ends: dict[int, Lsn] = {}
    for file in survey.archive.files:
        ends[file.timeline] = max(file.end, ends.get(file.timeline, file.end))
    for timeline, end in sorted(ends.items()):
        if needs.origins:
            yield WalStart(timeline=timeline, lsn=needs.before(timeline) or end)


def _remains(one: BackupRemains) -> Remains:
    return Remains(
        object=f"{one.ref.kind.value}/{one.ref.cluster}/{one.ref.label}",
        verdict=one.verdict,
        blobs=len(one.blobs),
        bytes=one.bytes,
        newest=one.newest,
    )


def _went(done: Deletion) -> Iterator[ExpiredBackup]:
    for one in done.gone:
        yield ExpiredBackup(
            label=one.backup.label,
            document_digest=one.backup.digest,
            bytes=one.bytes,
            state=one.backup.state,
            left=one.left,
            reasons=one.reasons,
        )


def _windows(survey: Survey, done: Deletion | None) -> Iterator[ReportedWindow]:
    """Before, or after what was `done`."""
    gone = done.labels if done else frozenset[str]()
    backups = [item for item in survey.candidates if item.label not in gone]
    archive = survey.archive.listed(done.needs if done else None)
    return map(_reported, recovery_windows(backups, archive) if backups else ())


def _reported(window: RecoveryWindow) -> ReportedWindow:
    return ReportedWindow(
        timeline=window.timeline,
        start=window.start,
        started_at=window.started_at,
        end=window.end,
        last_commit=window.last_commit,
        backups=window.backups,
    )
