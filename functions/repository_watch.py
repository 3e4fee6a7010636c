"""What the repository and the catalogue know of one another, as findings of the scope RECONCILE."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from functions.catalogue_comparison import Found, differing
from functions.finding_news import tell
from functions.wiring import Services
from shared.catalogue.ports import RecordedFinding
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingCode, FindingScope
from shared.domain.findings import REPOSITORY, Finding
from shared.errors import InvalidInput, NotFound
from shared.repository import layout
from shared.repository.blob_store import BlobInfo, BlobName
from shared.repository.tombstones import tombstone_of

# Event Grid delivers within seconds, and repeats: what took longer was lost.
EVENT_LOST_AFTER: Final = timedelta(hours=1)
# As long as the usual immutability: what is gone for longer went while somebody knew of it.
WITNESSES_COUNT: Final = timedelta(days=35)
# When more than this is gone, a finding for each says nothing new.
_TOLD_AT_MOST: Final = 1000
_SCOPES: Final = (FindingScope.RECONCILE,)


@dataclass(slots=True)
class Sighting:
    """What the hourly look saw: `known` to the catalogue before it, `listed` in the repository, and
    of these `late` the backups that had no row though they are old. `complete` once all is listed.
    """

    began: datetime
    known: Collection[BlobName]
    listed: set[BlobName] = field(default_factory=set)
    late: list[BlobInfo] = field(default_factory=list)
    complete: bool = False

    def saw(self, blob: BlobInfo) -> bool:
        """Whether the catalogue does not know it yet."""
        self.listed.add(blob.name)
        new = blob.name not in self.known
        old = self.began - blob.modified > EVENT_LOST_AFTER
        if new and old and layout.is_backup_document(blob.name):
            self.late.append(blob)  # reports that were made by hand have no event
        return new


def watch_repository(services: Services, sighting: Sighting) -> None:
    """Settle the scope RECONCILE of every cluster that has, or had, something to settle."""
    before = [
        one for one in services.catalogue.findings() if one.finding.scope is FindingScope.RECONCILE
    ]
    found: dict[ClusterName, list[Finding]] = defaultdict(list)
    for cluster, finding in _found(services, sighting, before):
        found[cluster].append(finding)
    for cluster in {*found, *(one.cluster for one in before)}:
        changes = services.catalogue.settle_findings(
            cluster, _SCOPES, found.get(cluster, ()), sighting.began
        )
        tell(services, cluster, changes)


def _found(
    services: Services, sighting: Sighting, before: Sequence[RecordedFinding]
) -> Iterator[Found]:
    aside = services.catalogue.set_aside_codes()
    yield from _lost_events(sighting, aside)
    yield from _missing(services, sighting)
    yield from _broken_chains(services, sighting.began)
    yield from _disbelieved(services, aside, sighting)
    names = sighting.listed & set(sighting.known)
    yield from differing(services, names, before, sighting.began)


def _lost_events(sighting: Sighting, aside: Collection[str]) -> Iterator[Found]:
    """Of documents that were set aside an event may well have told: they never get a row."""
    by_cluster: dict[ClusterName, list[BlobInfo]] = defaultdict(list)
    for blob in sighting.late:
        if str(blob.name) not in aside:
            by_cluster[_cluster_of(blob.name)].append(blob)
    for cluster, blobs in by_cluster.items():
        oldest = min(blobs, key=lambda blob: blob.modified)
        fact = f"{len(blobs)} backups had no event for over an hour, the oldest is {oldest.name}"
        evidence = {"backups": str(len(blobs)), "oldest": str(oldest.name)}
        lost = Finding(FindingCode.EVENT_LOST, "backups", oldest.modified, fact, evidence)
        yield cluster, lost


def _missing(services: Services, sighting: Sighting) -> Iterator[Found]:
    """Rows whose document is gone, though no run of `expire` has meant to delete it."""
    for name in sorted(set(sighting.known) - sighting.listed)[:_TOLD_AT_MOST]:
        if _is_there(services, name) or _has_expired(services, name):
            continue
        fact = f"{name} is in the catalogue, and no longer in the repository"
        evidence = {"blob": str(name)}
        gone = Finding(FindingCode.DOCUMENT_MISSING, str(name), sighting.began, fact, evidence)
        yield _cluster_of(name), gone


def _broken_chains(services: Services, now: datetime) -> Iterator[Found]:
    """Backups that others tell of, that have no row and no document, and that never expired.

    A document names the one before it; of the newest only reports can tell.
    """
    told = {
        lost: f"backup {ref.label} came after it"
        for ref, lost in services.catalogue.lost_predecessors()
    }
    for lost in services.catalogue.lost_backups(now - WITNESSES_COUNT):
        told.setdefault(lost, "a report tells of it")
    for lost, witness in islice(told.items(), _TOLD_AT_MOST):
        if _is_there(services, lost.document) or _has_expired(services, lost.document):
            continue
        label = lost.label.text
        fact = f"backup {label} is gone and never expired: {witness}"
        evidence = {"label": label, "witness": witness}
        yield lost.cluster, Finding(FindingCode.CHAIN_BROKEN, label, now, fact, evidence)


def _disbelieved(
    services: Services, aside: Mapping[str, str], sighting: Sighting
) -> Iterator[Found]:
    """Documents that were set aside and still lie there; messages have findings of their own."""
    for text, code in aside.items():
        container, _, path = text.partition("/")
        name = BlobName(container, path)
        if container not in layout.CONTAINERS or not _is_there(services, name):
            continue
        fact = f"{name} was set aside: {code}"
        evidence = {"blob": text, "code": code}
        yield REPOSITORY, Finding(FindingCode.DISBELIEVED, text, sighting.began, fact, evidence)


def _is_there(services: Services, name: BlobName) -> bool:
    """It may have been committed while the listing went on."""
    try:
        services.store.head(name)
    except NotFound:
        return False
    return True


def _has_expired(services: Services, name: BlobName) -> bool:
    try:
        backup = layout.backup_of_document(name)
    except InvalidInput:  # a report; or a label that somebody made up
        return False
    return tombstone_of(services.store, backup, services.pinned) is not None


def _cluster_of(name: BlobName) -> ClusterName:
    """Every path begins with it."""
    return ClusterName(name.path.partition("/")[0])
