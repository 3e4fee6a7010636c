"""What maintenance, audits and a look at the settings print."""

from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Column, Table

from shared.repository.audit_report import AuditReport
from worker.commands.maintenance import MaintenanceOutcome, TaskOutcome
from worker.commands.printed import OUT, megabytes, print_json
from worker.commands.settings_check import ClusterPolicy


def maintenance(outcome: MaintenanceOutcome, *, as_json: bool) -> None:
    if as_json:
        lists = {"done": outcome.done, "failed": outcome.failed, "left": outcome.left}
        print_json(
            {
                **{name: [_task(one) for one in tasks] for name, tasks in lists.items()},
                "freed_bytes": outcome.freed_bytes,
            }
        )
        return
    for word, tasks in (
        ("done", outcome.done),
        ("FAILED", outcome.failed),
        ("left", outcome.left),
    ):
        for one in tasks:
            OUT.print(f"  {word:<7} {_sentence(one)}", markup=False)
    OUT.print(
        f"{len(outcome.done)} done, {len(outcome.failed)} failed, {len(outcome.left)} left; "
        f"{megabytes(outcome.freed_bytes)} freed"
    )


def _task(one: TaskOutcome) -> dict[str, object]:
    return {
        "command": one.task.command,
        "subject": str(one.task.subject),
        "reason": one.task.reason,
        "bytes": one.task.bytes,
        "milliseconds": one.milliseconds,
        "after_bytes": one.after,
        "problem": one.problem,
    }


def _sentence(one: TaskOutcome) -> str:
    task = one.task
    words = f"{task.command:<8} {task.subject} ({task.reason}, {megabytes(task.bytes)})"
    if one.problem is not None:
        return f"{words}: {one.problem}"
    after = f", now {megabytes(one.after)}" if one.after is not None else ""
    return f"{words} in {one.milliseconds / 1000:.1f} s{after}"


def audit(report: AuditReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    table = Table("duty", Column("schedule", no_wrap=True), "promised", "done", "missed")
    for duty in report.duties:
        counts = (duty.expected, duty.met, duty.missed_count)
        table.add_row(duty.kind, duty.cron, *map(str, counts))
    OUT.print(table)
    promised = report.objectives
    OUT.print(f"RTO: promised {_seconds(promised.rto_ms)}, worst {_seconds(promised.worst_rto_ms)}")
    OUT.print(f"RPO: promised {_seconds(promised.rpo_ms)}, worst {_seconds(promised.worst_rpo_ms)}")
    for one in report.evidence:
        if one.verdict in {"damaged", "failed"}:
            OUT.print(f"  {one.kind} {one.id} of {one.label}: {one.verdict}", markup=False)
    for fact in report.trail.breaks:
        OUT.print(f"  audit trail: {fact}", markup=False)
    for item in report.disbelieved:
        OUT.print(f"  not believed: {item.object}: {item.code}", markup=False)
    outcome = "nothing missed" if report.passed else "NOT all that was promised was done"
    OUT.print(
        f"audit {report.id} of {report.cluster}, {report.since:%F} to {report.until:%F}: {outcome}"
    )


def _seconds(milliseconds: int | None) -> str:
    return "never measured" if milliseconds is None else f"{milliseconds / 1000:.1f} s"


def policies(found: Sequence[ClusterPolicy], *, as_json: bool) -> None:
    if as_json:
        print_json({"clusters": [asdict(one) for one in found]})
        return
    for one in found:
        policy = f", policy {one.policy}" if one.policy else ""
        OUT.print(f"cluster {one.cluster}{policy}", markup=False)
        table = Table("job", Column("schedule, UTC", no_wrap=True), "next", box=None)
        for run in one.runs:
            table.add_row(run.kind, run.cron, f"{run.next:%a %F %R}")
        OUT.print(table)
        kept = ", ".join(f"{name} {value}" for name, value in one.retention.items() if value)
        OUT.print(f"  keeps: {kept}", markup=False)
        promised = ", ".join(f"{name} {value}" for name, value in one.objectives.items())
        OUT.print(f"  promises: {promised}", markup=False)
    OUT.print(f"the settings are valid; {len(found)} clusters")
