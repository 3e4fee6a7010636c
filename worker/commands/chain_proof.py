"""Proof of a backup and of the chain below it, link by link; what is proved is remembered.

A link's signed report is the memory: as long as the newest report about exactly its document
passed, later verifications do not read the link's data again, unless they are told to. What is
cheap is asked anew each time: whether every part is there, and whether the chain can be restored as
its indexes tell.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from shared.domain.not_restorable import NotRestorable
from shared.domain.restore_plan import plan_restore
from shared.domain.tablespace_places import TablespaceLocation
from shared.errors import Corrupt, NotFound, PgkeepError
from shared.repository.backups import StoredBackup
from shared.repository.belief import is_unbelievable
from shared.repository.chains import StoredChain, read_chain
from shared.repository.documents import (
    BackupDocument,
    ChainLinkProof,
    Finding,
    VerificationReport,
)
from shared.repository.proofs import newest_verification
from worker.commands.index_proof import Note
from worker.commands.link_proof import prove_link
from worker.commands.opened_backup import (
    BackupIncomplete,
    OpenedBackup,
    open_backup,
    require_complete,
)
from worker.commands.opened_chain import OpenedChain
from worker.commands.part_proof import Tally
from worker.commands.services import Services, Stopwatch
from worker.commands.verification_report import keep_report, report_of

# Of a damaged ancestor; its own report has them all.
_FINDINGS_TOLD = 3

Links = Sequence[OpenedBackup]


class AncestorDamaged(Corrupt):
    """A backup that this one builds on is damaged."""

    code = "ancestor-damaged"
    hint = "Nothing that builds on it can be restored; take a new full backup."


@dataclass(frozen=True, slots=True)
class Run:
    """One verification; with `whole_chain` it reads again what is remembered."""

    services: Services
    executor: Executor
    whole_chain: bool


@dataclass(slots=True)
class _Below:
    """What is known of the links below one; their damage is that of every link above."""

    proofs: list[ChainLinkProof] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, report: VerificationReport, *, remembered: bool) -> None:
        self.proofs.append(
            ChainLinkProof(
                label=report.label,
                digest=report.document_digest,
                report=report.id,
                remembered=remembered,
            )
        )
        own = [item for item in report.findings if item.code != AncestorDamaged.code]
        if own:
            told = (f"{item.object}: {item.code}: {item.detail}" for item in own[:_FINDINGS_TOLD])
            self.note(report.label, AncestorDamaged(f"report {report.id}: {'; '.join(told)}"))

    def note(self, where: str, error: PgkeepError) -> None:
        self.findings.append(Finding(code=error.code, object=where, detail=error.fact))


def prove_chain(run: Run, stored: StoredBackup, report_id: str | None = None) -> VerificationReport:
    """Verify the backup, and before it every ancestor that no remembered report proves.

    Each link that is read gets a report of its own. Raises when nothing can be said.
    """
    below = _Below()
    links = _opened_links(run.services, stored, below)
    for count in range(1, len(links)):
        report = _remembered(run, links[count - 1].stored)
        if report is None:
            below.add(_prove_link(run, links[:count], below), remembered=False)
        else:
            below.add(report, remembered=True)
    return _prove_link(run, links, below, report_id)


def believed_chain(services: Services, stored: StoredBackup, note: Note) -> StoredChain | None:
    """The documents of the chain; notes why they make none."""
    try:
        return read_chain(services.store, stored, services.pinned)
    except PgkeepError as error:
        if not is_unbelievable(error):
            raise
        note(str(stored.ref.document), error)
        return None


def _opened_links(services: Services, stored: StoredBackup, below: _Below) -> Links:
    """The chain with its keys, or the backup alone when it has no chain that could be opened."""
    own = open_backup(services, stored)
    chain = believed_chain(services, stored, below.note)
    ancestors: list[OpenedBackup] = []
    for link in chain.links[:-1] if chain else ():
        try:
            ancestors.append(open_backup(services, link))
        except (Corrupt, NotFound) as error:
            fact = f"its keys: {error.code}: {error.fact}"
            below.note(link.ref.label.text, AncestorDamaged(fact))
    return [own] if below.findings else [*ancestors, own]


def _remembered(run: Run, link: StoredBackup) -> VerificationReport | None:
    """The report that proves the link, as long as nothing of it was lost since."""
    if run.whole_chain:
        return None
    services = run.services
    report = newest_verification(services.store, link, services.pinned)
    if report is None or not report.passed:
        return None
    try:
        require_complete(services, link)
    except BackupIncomplete:
        return None
    return report


def _prove_link(
    run: Run, links: Links, below: _Below, report_id: str | None = None
) -> VerificationReport:
    """Read the last of the links, whose ancestors the others are; keep its report."""
    services, stored = run.services, links[-1].stored
    watch = Stopwatch(services.clocks.monotonic)
    tally = Tally(services.progress, stored.document.stored_size, findings=list(below.findings))
    services.progress.phase(f"verify {stored.ref.label}")
    readable = prove_link(links[-1], _parent(links), tally, run.executor)
    if readable and not below.findings:
        _check_restorable(links, tally, run.executor)
    report = report_of(services, stored, tally, watch, report_id=report_id, chain=below.proofs)
    return keep_report(services, report)


def _parent(links: Links) -> BackupDocument | None:
    return links[-2].stored.document if len(links) > 1 else None


def _check_restorable(links: Links, tally: Tally, executor: Executor) -> None:
    """Plan the restore of the whole chain: every file must come of what the links hold."""
    chain = OpenedChain(tuple(links))
    document = chain.newest.stored.document
    places = [
        TablespaceLocation(str(item.oid), f"pg_tblspc/{item.oid}", "", in_place=True)
        for item in document.tablespaces
    ]
    try:
        plan = plan_restore(chain.indexes(executor), places, block_size=chain.block_size)
        _ = plan.fetched_bytes  # counting them lays out every fetch
    except (Corrupt, NotFound, NotRestorable) as error:
        tally.note(f"chain of {document.label}", error)
