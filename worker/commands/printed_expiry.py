"""What `pgkeep expire` prints: what goes and why, what stays and why, what can then be restored."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from rich.table import Column, Table

from shared.domain.backup import BackupLabel
from shared.repository.expiry_documents import ExpiryReport, ReportedWindow
from worker.commands.expire import ExpireOutcome
from worker.commands.printed import OUT, megabytes, print_json

_DAY: Final = timedelta(days=1)
_REMAINS: Final = {
    "litter": "of an attempt that never committed",
    "young": "of an attempt that never committed, still too young to go",
    "expired": "left of a deletion that did not finish",
    "document-missing": "its document is GONE, and not by expire: nobody touches it",
}


def expiry(outcome: ExpireOutcome, *, as_json: bool) -> None:
    report = outcome.report
    if as_json:
        print_json({"dry_run": outcome.dry_run, **report.model_dump(mode="json")})
        return
    how = "dry run, nothing is deleted" if outcome.dry_run else f"run {report.id}"
    at = _instant(report.created_at)
    OUT.print(f"[bold]Retention of {report.cluster}[/] at {at} ({how})\n")
    if report.went or report.staying:
        OUT.print(_backups(report, goes="goes" if outcome.dry_run else "gone"))
    for line in (*_summary(report, outcome), *_troubles(report)):
        OUT.print(line, markup=False)
    OUT.print("\n[bold]What can be restored[/]")
    OUT.print(_windows(report, outcome))
    for line in _lost(report):
        OUT.print(line, markup=False)
    if outcome.dry_run and report.refused is None:
        OUT.print(f"\nTo delete exactly this, or nothing:\n  {_command(report)}", markup=False)


def _backups(report: ExpiryReport, *, goes: str) -> Table:
    """Oldest first, as they were taken."""
    # A label is there to be copied: it must not be wrapped.
    label = Column("backup", no_wrap=True)
    age, stored = (Column(name, justify="right") for name in ("age", "stored"))
    table = Table("", label, age, stored, "state", "why")
    rows = [
        *((one.label, goes, one.bytes, one.state, one.reasons, "red") for one in report.went),
        *((one.label, "stays", one.bytes, one.state, one.reasons, "") for one in report.staying),
    ]
    for name, verdict, size, state, reasons, style in sorted(rows):
        old = _age(report.created_at, BackupLabel(name).time)
        why = "; ".join(reasons)
        table.add_row(verdict, name, old, megabytes(size), state, why, style=style)
    hidden = report.staying_count - len(report.staying)
    if hidden:
        table.caption = f"{hidden} older backups stay and are not shown"
    return table


def _summary(report: ExpiryReport, outcome: ExpireOutcome) -> Iterator[str]:
    if report.refused is not None:
        yield f"REFUSED, nothing is deleted: {report.refused}"
        return
    tense = "would be" if outcome.dry_run else "are"
    yield (
        f"{len(report.went)} of {len(report.went) + report.staying_count} backups and "
        f"{report.wal.files} files of WAL {tense} deleted: {megabytes(report.freed_bytes)} freed"
    )
    if report.settles:
        yield "the policy keeps less than before: until it has settled, the longer one counts"
    if report.postponed:
        yield f"{report.postponed} more go in later runs: one run deletes only so many"
    for start in report.wal.before:
        yield f"WAL of timeline {start.timeline} begins at {start.lsn} from then on"


def _troubles(report: ExpiryReport) -> Iterator[str]:
    for one in report.not_yet:
        yield f"not yet: {one.object}, {one.blobs} blobs: {one.fact}"
    for rest in report.remains:
        age = _age(report.created_at, rest.newest)
        yield (
            f"no document: {rest.object}, {rest.blobs} blobs, {megabytes(rest.bytes)}, "
            f"{age} old: {_REMAINS[rest.verdict]}"
        )
    for run in report.completed:
        yield f"run {run} had died: it is completed and reported"
    for name in report.foreign:
        yield f"not pgkeep's, never touched: {name}"
    if report.foreign_count > len(report.foreign):
        yield f"… and {report.foreign_count - len(report.foreign)} more that are not pgkeep's"


def _windows(report: ExpiryReport, outcome: ExpireOutcome) -> Table:
    span, backups = (Column(name, justify="right") for name in ("span", "backups"))
    table = Table("", "timeline", "from", "to", "position", span, backups)
    after = "afterwards" if outcome.dry_run else "now"
    for when, windows in (("before", report.windows_before), (after, report.windows_after)):
        for number, window in enumerate(windows):
            table.add_row(
                when if number == 0 else "",
                str(window.timeline),
                _instant(window.started_at),
                _end(window),
                str(window.end),
                _span(window),
                str(len(window.backups)),
                end_section=number == len(windows) - 1,
            )
        if not windows:
            table.add_row(when, "", "nothing", end_section=True)
    return table


def _end(window: ReportedWindow) -> str:
    """The last commit that is known of, if there is any behind the first backup."""
    beyond = _beyond(window)
    return _instant(beyond) if beyond else "the end of the backup"


def _span(window: ReportedWindow) -> str:
    return _age(_beyond(window) or window.started_at, window.started_at)


def _beyond(window: ReportedWindow) -> datetime | None:
    last = window.last_commit
    return last if last is not None and last > window.started_at else None


def _lost(report: ExpiryReport) -> Iterator[str]:
    """The one sentence that whoever confirms has to read."""
    before = min((one.started_at for one in report.windows_before), default=None)
    after = min((one.started_at for one in report.windows_after), default=None)
    if before is None or before == after:
        yield "Nothing that can be restored is lost."
    elif after is None:
        yield f"Nothing can be restored any more, {_instant(before)} and later."
    else:
        yield f"The oldest that can be restored: {_instant(after)}, until now {_instant(before)}."


def _command(report: ExpiryReport) -> str:
    return f"pgkeep expire {report.cluster} --plan {report.plan}"


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%F %TZ}"


def _age(now: datetime, at: datetime) -> str:
    age = max(now - at, timedelta())
    if age < _DAY:
        return f"{age.total_seconds() / 3600:.0f} h"
    return f"{age / _DAY:.0f} d"
