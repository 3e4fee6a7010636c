"""Signed reports in the evidence container: written once, and found again by their id."""

from typing import TypeVar

from shared.errors import BlobAlreadyExists, NotFound
from shared.repository.blob_store import BlobName
from shared.repository.documents import DrillReport, VerificationReport
from shared.repository.expiry_documents import ExpiryReport
from shared.repository.signatures import MAX_DOCUMENT, read_signed, sign_document
from worker.commands.cluster_identity import signer_of
from worker.commands.services import Services

Report = TypeVar("Report", VerificationReport, DrillReport, ExpiryReport)


def known_report(services: Services, name: BlobName, model: type[Report]) -> Report | None:
    """The report that an earlier delivery of the same job has written, if there is one."""
    try:
        raw = services.reports.read(name, limit=MAX_DOCUMENT)
    except NotFound:
        return None
    return read_signed(raw, model, services.pinned)


def store_report(services: Services, name: BlobName, report: Report) -> Report:
    """Write it, unless another worker was quicker with the same job: then theirs is the report."""
    try:
        services.reports.create(name, sign_document(report, signer_of(services)))
    except BlobAlreadyExists:
        return known_report(services, name, type(report)) or report
    return report
