"""What has been found out about each of a cluster's backups, by its signed reports alone."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Self

from shared.domain.cluster import ClusterName
from shared.domain.drill import DrillVerdict
from shared.errors import PgkeepError
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.backups import StoredBackup
from shared.repository.belief import is_unbelievable
from shared.repository.blob_store import BlobName
from shared.repository.documents import DrillReport, VerificationReport
from shared.repository.proofs import newest_verification
from shared.repository.reports import is_report, read_report
from worker.commands.services import Services
from worker.pipeline.in_order import map_in_order

_READ_AHEAD: Final = 16


@dataclass(frozen=True, slots=True)
class ProofStates:
    """By the digest of a backup's document: its newest verification that decides, and its newest
    drill that did.
    """

    verifications: Mapping[str, VerificationReport]
    drills: Mapping[str, DrillReport]

    @classmethod
    def read(
        cls,
        services: Services,
        cluster: ClusterName,
        backups: Sequence[StoredBackup],
        executor: Executor,
    ) -> Self:
        """Raises what the store does; a report that cannot be believed does not count."""

        def verification(backup: StoredBackup) -> VerificationReport | None:
            return newest_verification(services.store, backup, services.pinned)

        found = map_in_order(executor, verification, backups, depth=_READ_AHEAD)
        verifications = {item.document_digest: item for item in found if item is not None}
        return cls(verifications, _newest_drills(services, cluster, executor))

    def verified(self, digest: str) -> bool:
        report = self.verifications.get(digest)
        return report is not None and report.passed

    def proven(self, digest: str) -> bool:
        report = self.drills.get(digest)
        return report is not None and report.verdict is DrillVerdict.PROVEN

    def damaged(self, digest: str) -> bool:
        """Either of the newest two found it so."""
        verification, drill = self.verifications.get(digest), self.drills.get(digest)
        unsound = verification is not None and not verification.passed
        return unsound or (drill is not None and drill.verdict is DrillVerdict.FAILED)


def _newest_drills(
    services: Services, cluster: ClusterName, executor: Executor
) -> dict[str, DrillReport]:
    """An inconclusive drill says nothing about its backup."""
    newest: dict[str, DrillReport] = {}
    for report in _drills(services, cluster, executor):
        known = newest.get(report.document_digest)
        decides = report.verdict is not DrillVerdict.INCONCLUSIVE
        if decides and (known is None or report.created_at > known.created_at):
            newest[report.document_digest] = report
    return newest


def _drills(services: Services, cluster: ClusterName, executor: Executor) -> Iterator[DrillReport]:
    def read(name: BlobName) -> DrillReport | None:
        try:
            report = read_report(services.store, name, services.pinned).report
        except PgkeepError as error:
            if not is_unbelievable(error):
                raise
            log_event("drill-report-refused", name=str(name), code=error.code)
            return None
        return report if isinstance(report, DrillReport) else None

    listed = services.store.list(layout.EVIDENCE, layout.drill_reports_prefix(cluster))
    names = [blob.name for blob in listed if is_report(blob.name)]
    found = map_in_order(executor, read, names, depth=_READ_AHEAD)
    return (report for report in found if report is not None)
