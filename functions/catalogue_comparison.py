"""Rows against their documents: each is compared once a day, a slice of them each hour.

Whoever can write to the catalogue can hide a backup or make a bad one look good; nothing is ever
restored by what a row says, but people and guards go by it.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Final

from functions.wiring import Services
from shared.catalogue.ports import Fact, RecordedFinding
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingCode
from shared.domain.findings import Finding
from shared.errors import NotFound, PgkeepError
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.backups import read_cluster
from shared.repository.belief import is_unbelievable
from shared.repository.blob_store import BlobName
from shared.repository.header_verification import verify_header
from shared.repository.reports import read_report

SLICES: Final = 24
# The host ends a function after ten minutes, and more than this one waits to be done.
_PATIENCE: Final = timedelta(minutes=5)
_AT_ONCE: Final = 4  # as many connections as the app's store keeps
_BETWEEN_LOOKS_AT_THE_CLOCK: Final = 64

Found = tuple[ClusterName, Finding]


def differing(
    services: Services,
    names: Collection[BlobName],
    before: Iterable[RecordedFinding],
    began: datetime,
) -> Iterator[Found]:
    """Of the hour's slice of `names`, and of all that differed `before`, which come first.

    When time is up the rest of a slice has to wait for tomorrow, and what is open stays so.
    """
    again = {
        one.finding.object: one
        for one in before
        if one.finding.code is FindingCode.CATALOGUE_DIFFERS
    }
    waiting = iter(_in_order(names, again, began))
    with ThreadPoolExecutor(_AT_ONCE, "compare") as pool:
        while services.clock() - began <= _PATIENCE:
            chunk = list(islice(waiting, _BETWEEN_LOOKS_AT_THE_CLOCK))
            if not chunk:
                return
            found = pool.map(partial(_columns, services), chunk)
            for name, columns in zip(chunk, found, strict=True):
                if columns:
                    yield _cluster_of(name), _finding(name, columns, began)
    left = list(waiting)
    log_event("comparison-cut-short", left=len(left))
    for name in left:
        if str(name) in again:
            yield again[str(name)].cluster, again[str(name)].finding


def _in_order(
    names: Collection[BlobName], again: Collection[str], began: datetime
) -> Sequence[BlobName]:
    """Another order each day, so that it is not always the same ones that time does not reach."""
    clusters = {layout.cluster_document(_cluster_of(name)) for name in names}
    hour = int(began.timestamp() // 3600) % SLICES
    wanted = [n for n in {*names, *clusters} if str(n) in again or slice_of(n) == hour]
    salt = began.date().isoformat()
    return sorted(wanted, key=lambda name: (str(name) not in again, _hash(f"{salt} {name}")))


def _columns(services: Services, name: BlobName) -> str:
    """Comma-separated; empty also for a document that nobody believes: that is another finding."""
    try:
        fact = _fact(services, name)
        return ", ".join(services.catalogue.differing_columns(fact)) if fact else ""
    except PgkeepError as error:
        if isinstance(error, NotFound) or is_unbelievable(error):
            return ""
        raise


def _fact(services: Services, name: BlobName) -> Fact | None:
    if layout.is_backup_document(name):
        ref = layout.backup_of_document(name)
        return verify_header(services.store, ref, services.pinned)
    if name == layout.cluster_document(_cluster_of(name)):
        return read_cluster(services.store, _cluster_of(name), services.pinned)
    return read_report(services.store, name, services.pinned)


def _finding(name: BlobName, columns: str, now: datetime) -> Finding:
    fact = f"the catalogue says of {name} something else than the document: {columns}"
    evidence = {"blob": str(name), "columns": columns}
    return Finding(FindingCode.CATALOGUE_DIFFERS, str(name), now, fact, evidence)


def slice_of(name: BlobName) -> int:
    """In which hour of the day it is compared."""
    return _hash(str(name))[0] % SLICES


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _cluster_of(name: BlobName) -> ClusterName:
    return ClusterName(name.path.partition("/")[0])
