"""The signed documents of a period, as an audit reads them: backups, verifications, drills."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName
from shared.domain.drill_target import DrillLevel
from shared.errors import PgkeepError
from shared.repository import layout
from shared.repository.audit_report import Disbelieved
from shared.repository.backups import StoredBackup, list_backups, read_backup
from shared.repository.belief import is_unbelievable
from shared.repository.documents import DrillReport, VerificationReport
from shared.repository.expiry_documents import ExpiryReport
from shared.repository.reports import StoredReport, is_report, read_report
from worker.commands.services import Services

# The writer's clock against the storage's: reports are looked for by the storage's time first.
_SKEW: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of the period that could be believed, and the names of what could not."""

    backups: Sequence[StoredBackup]
    reports: Sequence[StoredReport]
    disbelieved: Sequence[Disbelieved]


def gather(services: Services, cluster: ClusterName, since: datetime, until: datetime) -> Evidence:
    """Of [since, until), by the documents' own times. Raises what storage raises."""
    disbelieved: list[Disbelieved] = []
    backups = [
        stored
        for stored in _backups(services, cluster, disbelieved)
        if since <= stored.document.created_at < until
    ]
    reports = [
        stored
        for stored in _reports(services, cluster, since, disbelieved)
        if since <= stored.report.created_at < until
    ]
    return Evidence(backups, reports, disbelieved)


def _backups(
    services: Services, cluster: ClusterName, disbelieved: list[Disbelieved]
) -> Iterator[StoredBackup]:
    for ref in list_backups(services.store, cluster):
        try:
            yield read_backup(services.store, ref, services.pinned)
        except PgkeepError as error:
            disbelieved.append(_disbelieved(str(ref.document), error))


def _reports(
    services: Services, cluster: ClusterName, since: datetime, disbelieved: list[Disbelieved]
) -> Iterator[StoredReport]:
    for blob in services.store.list(layout.EVIDENCE, layout.backups_prefix(cluster)):
        if not is_report(blob.name) or blob.modified < since - _SKEW:
            continue
        try:
            yield read_report(services.store, blob.name, services.pinned)
        except PgkeepError as error:
            disbelieved.append(_disbelieved(str(blob.name), error))


def _disbelieved(name: str, error: PgkeepError) -> Disbelieved:
    """Raises the error again when it says nothing about the document."""
    if not is_unbelievable(error):
        raise error
    return Disbelieved(object=name, code=error.code)


def done(evidence: Evidence) -> Mapping[str, Sequence[datetime]]:
    """When something of each kind of the schedule was done; the greater stands for the lesser."""
    fulls, all_backups = [], []
    for stored in evidence.backups:
        document = stored.document
        all_backups.append(document.created_at)
        if document.kind is BackupKind.FULL:
            fulls.append(document.created_at)
    found = {
        "full": fulls,
        "incremental": all_backups,
        "verify": list(_verified(evidence.reports)),
        "expire": list(_expired(evidence.reports)),
    }
    drills = list(_drilled(evidence.reports))
    for number, level in enumerate(DrillLevel):
        enough = set(list(DrillLevel)[number:])
        found[f"drill_{level}"] = [at for at, reached in drills if reached in enough]
    return found


def _verified(reports: Iterable[StoredReport]) -> Iterator[datetime]:
    for stored in reports:
        if isinstance(stored.report, VerificationReport) and stored.report.deep:
            yield stored.report.created_at


def _expired(reports: Iterable[StoredReport]) -> Iterator[datetime]:
    for stored in reports:
        if isinstance(stored.report, ExpiryReport):
            yield stored.report.created_at


def _drilled(reports: Iterable[StoredReport]) -> Iterator[tuple[datetime, DrillLevel]]:
    for stored in reports:
        if isinstance(stored.report, DrillReport):
            yield stored.report.created_at, stored.report.level or DrillLevel.QUICK
