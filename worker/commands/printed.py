"""What verbs print: for people tables and sentences, for programs one JSON document."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table

from shared.domain.drill import Check
from shared.repository.backups import StoredBackup
from shared.repository.documents import BackupDocument, VerificationReport
from worker.commands.services import Progress as ProgressPort

if TYPE_CHECKING:  # every command prints, and shall not wait for what others do
    from shared.catalogue.rebuild import Rebuilt
    from worker.commands.backup import BackupOutcome
    from worker.commands.list_backups import ListedBackup
    from worker.keys.generate import KeySet
    from worker.keys.public_half import PublicHalf
    from worker.postgres.configuration_facts import ConfigurationFacts

OUT = Console(highlight=False, soft_wrap=True)


class _Silent:
    def phase(self, name: str) -> None:
        pass

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        pass


class _Bars:
    """One bar per phase."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def phase(self, name: str) -> None:
        self._task = self._progress.add_task(name, total=None)

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=done_bytes, total=total_bytes or None)


@contextmanager
def progress_bars(*, quiet: bool) -> Iterator[ProgressPort]:
    """Bars on standard error, on a terminal only."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield _Silent()
        return
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress)


def secondary(last_sync_time: datetime | None) -> None:
    """On standard error, so that one JSON document stays one."""
    Console(stderr=True, soft_wrap=True).print(secondary_sentence(last_sync_time), markup=False)


def secondary_sentence(last_sync_time: datetime | None) -> str:
    if last_sync_time is None:
        return "read from the secondary, as it is: nobody tells its Last Sync Time"
    return f"read from the secondary, as of Last Sync Time {last_sync_time:%Y-%m-%dT%H:%M:%SZ}"


def backup_outcome(outcome: "BackupOutcome", *, as_json: bool) -> None:
    if as_json:
        taken = {"label": outcome.label, "digest": outcome.digest}
        print_json({**taken, "whole_bytes": outcome.whole_bytes, **_document(outcome.document)})
        return
    document = outcome.document
    OUT.print(
        f"{document.kind} backup {outcome.label} is committed: {megabytes(document.plain_size)} in "
        f"{megabytes(document.stored_size)}, {document.total_ms / 1000:.1f} s"
    )
    if document.parent is not None:
        OUT.print(f"it builds on {document.parent.label}, link {document.depth} of its chain")
    if document.parent is not None and outcome.whole_bytes is not None:
        OUT.print(f"it holds what changed of {megabytes(outcome.whole_bytes)}")
    if document.composed_of is not None:
        OUT.print(f"it was composed of the chain that ends in {document.composed_of.label}")
    if document.instead_of_incremental is not None:
        why = document.instead_of_incremental
        OUT.print(f"full instead of incremental: {why.reason} ({why.code})", markup=False)
    if outcome.source_reason is not None:
        OUT.print(f"read from the primary: {outcome.source_reason}", markup=False)
    if document.suspect:
        OUT.print(f"suspect: PostgreSQL found {document.page_checksum_failures} damaged pages")


def verification(report: VerificationReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    outcome = "passed" if report.passed else "FAILED"
    depth = "every segment and file" if report.deep else "stored bytes only"
    OUT.print(
        f"verification of {report.label} {outcome} ({depth}): "
        f"{megabytes(report.stored_bytes)} read, {report.files} files, "
        f"{report.total_ms / 1000:.1f} s"
    )
    for link in report.chain:
        how = "remembered" if link.remembered else "read now"
        OUT.print(f"  builds on {link.label}: {how}, report {link.report}")
    for finding in report.findings:
        OUT.print(f"  {finding.code}: {finding.object}: {finding.detail}", markup=False)


def backups(listed: "Sequence[ListedBackup]", *, as_json: bool) -> None:
    if as_json:
        print_json({"backups": [_listed(item) for item in listed]})
        return
    # A label is there to be copied: it must not be wrapped.
    label = Column("label", no_wrap=True)
    table = Table("cluster", label, "kind", "finished", "size", "stored", "note")
    for item in listed:
        ref, document = item.ref, item.stored.document if item.stored else None
        if document is None:
            table.add_row(ref.cluster, str(ref.label), ref.kind, "", "", "", item.problem or "")
            continue
        table.add_row(
            ref.cluster,
            str(ref.label),
            ref.kind,
            f"{document.finished_at:%F %TZ}",
            megabytes(document.plain_size),
            megabytes(document.stored_size),
            ", ".join(_notes(document)),
        )
    OUT.print(table)


def _notes(document: BackupDocument) -> Iterator[str]:
    if document.suspect:
        yield "suspect"
    if document.parent is not None:
        yield f"on {document.parent.label}"
    if document.composed_of is not None:
        yield f"composed of {document.composed_of.label}"
    if document.instead_of_incremental is not None:
        yield f"full: {document.instead_of_incremental.code}"


def configuration(facts: "ConfigurationFacts", *, as_json: bool) -> None:
    """Ready to be kept in a file that postgresql.conf includes."""
    from worker.postgres.configuration_facts import recorded_configuration

    if as_json:
        print_json({"settings": facts.settings, "files": facts.files, "hba": facts.hba})
        return
    OUT.print(recorded_configuration(facts), markup=False, highlight=False, soft_wrap=True, end="")


def backup(stored: StoredBackup, more: Mapping[str, object], *, as_json: bool) -> None:
    """`more` is added to the JSON document."""
    if as_json:
        print_json({"digest": stored.digest, **_document(stored.document), **more})
        return
    document = stored.document
    facts = {
        "label": document.label,
        "PostgreSQL": document.postgres.version,
        "source": document.source,
        "started": f"{document.started_at:%F %TZ}",
        "finished": f"{document.finished_at:%F %TZ}",
        "WAL": f"{document.start_lsn} … {document.stop_lsn} on timeline {document.timeline}",
        "size": f"{megabytes(document.plain_size)} in {megabytes(document.stored_size)}",
        "key": document.kid,
        "digest": stored.digest,
        "suspect": f"{document.page_checksum_failures} damaged pages" if document.suspect else "no",
    }
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(name, str(value))
    for part in document.parts:
        table.add_row(part.name, f"{megabytes(part.plain_size)} in {megabytes(part.stored_size)}")
    OUT.print(table)


def checks(results: Sequence[Check]) -> None:
    for item in results:
        OUT.print(f"  {item.outcome:<12} {item.name:<24} {item.detail}", markup=False)


def rebuild(result: "Rebuilt", *, as_json: bool) -> None:
    if as_json:
        refused = [finding.model_dump(mode="json") for finding in result.refused]
        print_json({"facts": result.facts, "refused": refused})
        return
    OUT.print(f"the catalogue holds {result.facts} facts from the repository")
    for finding in result.refused:
        OUT.print(f"  not believed: {finding.object}: {finding.detail}")


def keys(made: "KeySet", *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(made))
        return
    for pair in (made.wrapping, made.escrow, made.manifest, made.signing):
        OUT.print(f"{pair.private}  {pair.public}")
    OUT.print("Keep escrow's private half offline: whoever has it can open every backup.")


def health(said: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"health": said})
        return
    OUT.print(said)


def public_half(half: "PublicHalf", *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(half))
        return
    OUT.print(half.as_settings(), markup=False, highlight=False, soft_wrap=True)


def _listed(item: "ListedBackup") -> dict[str, object]:
    known: dict[str, object] = {
        "cluster": item.ref.cluster,
        "label": str(item.ref.label),
        "problem": item.problem,
    }
    if item.stored is None:
        return known
    return {**known, "digest": item.stored.digest, **_document(item.stored.document)}


def _document(document: BackupDocument) -> dict[str, object]:
    return {
        **document.model_dump(mode="json"),
        "plain_size": document.plain_size,
        "stored_size": document.stored_size,
        "suspect": document.suspect,
    }


def print_json(value: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(value, default=str) + "\n")


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
