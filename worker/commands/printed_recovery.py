"""What restores, recoveries and drills print."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from shared.domain.file_versions import PlannedFile
from shared.domain.recovery_plan import RecoveryWindow
from shared.domain.recovery_target import TargetAction
from shared.repository.documents import DrillReport
from worker.commands.printed import OUT, checks, megabytes, print_json, secondary_sentence
from worker.commands.recovery import PlannedRecovery
from worker.commands.restore import PreparedRestore, RestoreOutcome
from worker.postgres.replay_progress import Outcome

if TYPE_CHECKING:
    from worker.commands.extract import ExtractOutcome
    from worker.commands.recover import RecoveryOutcome
    from worker.commands.recovery_rates import Estimate


def restore_plan(prepared: PreparedRestore, rates: "Estimate", *, as_json: bool) -> None:
    plan, planned = prepared.plan, prepared.planned
    if as_json:
        print_json(
            {
                "label": plan.label,
                "chain": list(plan.chain),
                "files": len(plan.files),
                "bytes": plan.file_bytes,
                "fetched_bytes": plan.fetched_bytes,
                "estimated_seconds": round(rates.seconds, 1),
                "rates": {
                    "restore_bytes_per_s": round(rates.restore.bytes_per_second),
                    "restore_source": rates.restore.source,
                    "replay_bytes_per_s": round(rates.replay.bytes_per_second),
                    "replay_source": rates.replay.source,
                },
                "tablespaces": {item.original: item.location for item in plan.tablespaces},
                "reasons": list(plan.reasons),
                "recovery": None if planned is None else _recovery(planned),
            }
        )
        return
    for line in _plan_lines(prepared, rates):
        OUT.print(line, markup=False)


def restore_outcome(outcome: RestoreOutcome, *, as_json: bool) -> None:
    if as_json:
        print_json(_restored(outcome))
        return
    _print_restored(outcome)
    if not outcome.configured:
        OUT.print("The source kept postgresql.conf elsewhere. What it had set is told by")
        OUT.print(
            f"  pgkeep show {outcome.cluster} --label {outcome.label} --configuration", markup=False
        )
    planned = outcome.planned
    if planned is None:
        OUT.print("Start it with pg_ctl; archiving is off.")
        return
    OUT.print(f"It is not recovered yet. To replay up to {planned.plan.target}:", markup=False)
    OUT.print(f"  pgkeep wal agent {planned.backup.ref.cluster} &", markup=False)
    OUT.print(f"  pg_ctl -D {outcome.target} start", markup=False)
    OUT.print(_then(outcome.action))


def recovery_outcome(outcome: "RecoveryOutcome", *, as_json: bool) -> None:
    replayed = outcome.replayed
    if as_json:
        print_json(
            {
                **_restored(outcome.restored),
                "outcome": "promoted" if replayed.outcome is Outcome.OPEN else "shut down",
                "reached_lsn": str(outcome.reached),
                "reached_time": _iso(replayed.last_commit),
                "timeline": outcome.timeline,
                "replayed_bytes": replayed.bytes,
                "wal_segments": replayed.fetched.segments if replayed.fetched else 0,
                "wal_waited_s": round(replayed.fetched.waited_s, 3) if replayed.fetched else 0.0,
            }
        )
        return
    _print_restored(outcome.restored)
    when = f", last transaction at {_iso(replayed.last_commit)}" if replayed.last_commit else ""
    OUT.print(f"It is recovered to {outcome.reached}{when}, {megabytes(replayed.bytes)} of WAL.")
    if replayed.outcome is Outcome.SHUT_DOWN:
        OUT.print("It shut down at the target and is not promoted: recovery.signal is there.")
        return
    OUT.print(f"It is on timeline {outcome.timeline}. Start it with pg_ctl; archiving is off.")


def extract_outcome(outcome: "ExtractOutcome", *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "label": outcome.label,
                "chain": list(outcome.chain),
                "target": str(outcome.target),
                "files": [_file(file) for file in outcome.files],
                "bytes": outcome.bytes,
                "fetched_bytes": outcome.fetched_bytes,
            }
        )
        return
    for file in outcome.files:
        OUT.print(f"{_shown(file.path)}: {file.size} bytes", markup=False)
    size = megabytes(outcome.bytes)
    OUT.print(
        f"{len(outcome.files)} files of backup {outcome.label}, {size}, are in {outcome.target}.",
        markup=False,
    )
    OUT.print(_read_from(outcome.chain, outcome.fetched_bytes), markup=False)


def drill_report(report: DrillReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    OUT.print(f"drill of {report.label}: [bold]{report.verdict}[/] ({report.reason})")
    if report.chain:
        OUT.print(f"its chain: {', '.join(report.chain)}", markup=False)
    if report.from_secondary:
        OUT.print(secondary_sentence(report.last_sync_time), markup=False)
    phases = ", ".join(f"{name} {ms / 1000:.1f} s" for name, ms in report.phases_ms.items())
    OUT.print(f"RTO {report.rto_ms / 1000:.1f} s: {phases}")
    if report.reached_lsn is not None:
        OUT.print(
            f"{report.target}: reached {report.reached_lsn} on timeline {report.timeline}, "
            f"{megabytes(report.replayed_bytes)} of WAL, waited "
            f"{report.wal_waited_ms / 1000:.1f} s for it",
            markup=False,
        )
    if report.rpo_ms is not None:
        OUT.print(f"RPO {report.rpo_ms / 1000:.1f} s")
    checks(report.checks)
    for table in report.tables:
        OUT.print(f"  {table.table}: {table.kind}: {table.sentence}")


def _plan_lines(prepared: PreparedRestore, rates: "Estimate") -> Iterator[str]:
    plan, planned = prepared.plan, prepared.planned
    yield from plan.reasons
    yield (
        f"{len(plan.files)} files, {megabytes(plan.file_bytes)}, for which "
        f"{megabytes(plan.fetched_bytes)} are fetched; about {_duration(rates.restore_seconds)} at "
        f"{megabytes(round(rates.restore.bytes_per_second))}/s ({rates.restore.source})"
    )
    for place in plan.tablespaces:
        yield f"tablespace {place.oid}: {place.original} → {place.location}"
    if planned is not None:
        yield from _recovery_lines(planned)
        yield (
            f"{megabytes(planned.plan.wal_bytes)} to replay; about "
            f"{_duration(rates.replay_seconds)} at "
            f"{megabytes(round(rates.replay.bytes_per_second))}/s ({rates.replay.source})"
        )


def _recovery_lines(planned: PlannedRecovery) -> Iterator[str]:
    plan = planned.plan
    yield f"target: {plan.target}"
    path = (f"{part.timeline} from {part.start} to {part.end or 'its end'}" for part in plan.path)
    yield f"timeline {', then '.join(path)}"
    yield f"WAL: {_span(plan.segments)}, {megabytes(plan.wal_stored_bytes)} fetched"
    for window in planned.windows:
        yield (
            f"window of timeline {window.timeline}: {_iso(window.started_at)} at {window.start} to "
            f"{_iso(window.last_commit) or 'no known time'} at {window.end}"
        )
    for warning in plan.warnings:
        yield f"warning: {warning}"


def _span(segments: Sequence[str]) -> str:
    if not segments:
        return "none beyond the backup's own"
    return f"{len(segments)} segments, {segments[0]} … {segments[-1]}"


def _recovery(planned: PlannedRecovery) -> dict[str, object]:
    plan = planned.plan
    return {
        "target": str(plan.target),
        "timeline": plan.timeline,
        "path": [
            {
                "timeline": part.timeline,
                "start": str(part.start),
                "end": None if part.end is None else str(part.end),
            }
            for part in plan.path
        ],
        "first_segment": plan.segments[0] if plan.segments else None,
        "last_segment": plan.segments[-1] if plan.segments else None,
        "segments": len(plan.segments),
        "wal_bytes": plan.wal_bytes,
        "wal_stored_bytes": plan.wal_stored_bytes,
        "windows": [_window(window) for window in planned.windows],
        "warnings": list(plan.warnings),
    }


def _window(window: RecoveryWindow) -> dict[str, object]:
    return {
        "timeline": window.timeline,
        "start": str(window.start),
        "started_at": _iso(window.started_at),
        "end": str(window.end),
        "last_commit": _iso(window.last_commit),
        "backups": list(window.backups),
    }


def _restored(outcome: RestoreOutcome) -> dict[str, object]:
    return {
        "label": outcome.label,
        "chain": list(outcome.chain),
        "target": str(outcome.target),
        "files": outcome.files,
        "bytes": outcome.bytes,
        "fetched_bytes": outcome.fetched_bytes,
        "phases_ms": outcome.phases_ms,
        "recovery": None if outcome.planned is None else _recovery(outcome.planned),
    }


def _print_restored(outcome: RestoreOutcome) -> None:
    seconds = sum(outcome.phases_ms.values()) / 1000
    OUT.print(
        f"backup {outcome.label} is restored into {outcome.target}: {outcome.files} files, "
        f"{megabytes(outcome.bytes)}, {seconds:.1f} s.",
        markup=False,
    )
    if len(outcome.chain) > 1:
        OUT.print(_read_from(outcome.chain, outcome.fetched_bytes), markup=False)


def _read_from(chain: Sequence[str], fetched_bytes: int) -> str:
    return f"{megabytes(fetched_bytes)} were read from {len(chain)} backups: {', '.join(chain)}"


def _then(action: TargetAction) -> str:
    match action:
        case TargetAction.PROMOTE:
            return "It is promoted there, with archiving off."
        case TargetAction.PAUSE:
            return "It pauses there, readable; select pg_wal_replay_resume() promotes it."
        case TargetAction.SHUTDOWN:
            return "It shuts down there."


def _file(file: PlannedFile) -> dict[str, object]:
    return {"path": _shown(file.path), "size": file.size}


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"  # noqa: PLR2004 - two minutes


def _iso(time: datetime | None) -> str | None:
    return None if time is None else f"{time:%Y-%m-%dT%H:%M:%S.%fZ}"
