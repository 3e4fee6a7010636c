"""`pgkeep verify`: read a backup back and prove what can be proved without a server.

Deep: every stored byte, segment and frame, every file against PostgreSQL's manifest, the WAL from
start to stop, the index that restores go by, and the chain that the backup builds on. Without a
key: every stored byte against the signed document. The result is a signed report in the evidence
container; the catalogue only repeats it.
"""

from concurrent.futures import Executor, ThreadPoolExecutor

from shared.errors import InvalidInput
from shared.repository.backups import StoredBackup, read_backup
from shared.repository.documents import VerificationReport
from shared.repository.layout import BackupRef
from worker.commands.chain_proof import Run, believed_chain, prove_chain
from worker.commands.part_proof import Tally, compare, prove_ciphertext
from worker.commands.services import Services, Stopwatch
from worker.commands.verification_report import keep_report, kept_report, report_of


class WholeChainNeedsKey(InvalidInput):
    """A verification that shall read every link, but stored bytes only."""

    code = "whole-chain-needs-key"
    hint = "Leave out --ciphertext-only, or verify the links one by one with --label."


def verify(
    services: Services,
    ref: BackupRef,
    *,
    deep: bool = True,
    whole_chain: bool = False,
    report_id: str | None = None,
    expected_digest: str | None = None,
) -> VerificationReport:
    """Read the whole backup and store a signed report. Idempotent per `report_id`.

    Of its ancestors, those are read that no earlier report proves; with `whole_chain`, all. With
    `expected_digest`, that of the document when the job was asked for, another document is
    refused: DigestMismatch.

    Damage becomes findings in the report, not an exception. Raises when nothing can be said:
    no such backup, no key, storage away.
    """
    if whole_chain and not deep:
        raise WholeChainNeedsKey("the whole chain can only be read with a key")
    if report_id is not None:
        known = kept_report(services, ref.cluster, report_id)
        if known is not None:
            return known
    stored = read_backup(services.store, ref, services.pinned)
    if expected_digest is not None:
        compare(str(ref.document), stored.digest, expected_digest)
    with ThreadPoolExecutor(services.settings.worker.transfer_threads) as executor:
        if deep:
            return prove_chain(Run(services, executor, whole_chain), stored, report_id)
        return _prove_stored_bytes(services, stored, report_id, executor)


def _prove_stored_bytes(
    services: Services, stored: StoredBackup, report_id: str | None, executor: Executor
) -> VerificationReport:
    """Of this backup alone; of its ancestors only the documents."""
    watch = Stopwatch(services.clocks.monotonic)
    tally = Tally(services.progress, stored.document.stored_size)
    services.progress.phase("verify")
    believed_chain(services, stored, tally.note)
    prove_ciphertext(services.store, stored, tally, executor)
    report = report_of(services, stored, tally, watch, report_id=report_id, chain=None)
    return keep_report(services, report)
