"""Header verification: does a committed backup hold together, judged without reading its data?

The document is authenticated; every blob it names must exist with the stated size, every key
record must exist, the previous document must have the stated digest if it is still there, and the
documents of the chain must lead down to a full backup.
Whether the bytes themselves are right is for the deep verification to say.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from shared.domain.backup import BackupLabel
from shared.errors import (
    BlobNotFound,
    ChainBroken,
    ClusterIdentityDiffers,
    ClusterUnknown,
    PartSizeDiffers,
    PgkeepError,
)
from shared.repository import layout
from shared.repository.backups import BackupNotFound, StoredBackup, read_backup, read_cluster
from shared.repository.belief import is_unbelievable
from shared.repository.blob_store import BlobName, BlobStore
from shared.repository.chains import check_link
from shared.repository.documents import BackupLink, ClusterDocument, Finding, SealedObject, Volume
from shared.repository.layout import BackupRef
from shared.repository.signatures import PinnedKeys


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a repository says about the blobs around a document.

    `size_of` answers in bytes, or None when the blob is absent; `backup_of` with a backup by its
    stored document, or None when there is none that can be believed.
    """

    size_of: Callable[[BlobName], int | None]
    backup_of: Callable[[BackupRef], StoredBackup | None]


@dataclass(frozen=True, slots=True)
class HeaderVerification:
    """An authenticated backup, the identity of its cluster, and what is wrong around it."""

    backup: StoredBackup
    cluster: ClusterDocument
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return not self.findings


Judge = Callable[[StoredBackup], HeaderVerification]


def verify_header(store: BlobStore, ref: BackupRef, pinned: PinnedKeys) -> HeaderVerification:
    """Read and authenticate the document, then ask for every blob that it names.

    Raises what `read_backup` raises, and ClusterUnknown when nothing registered the cluster.
    """
    return verify_around(store, read_backup(store, ref, pinned), pinned)


def verify_around(store: BlobStore, backup: StoredBackup, pinned: PinnedKeys) -> HeaderVerification:
    """The same for a document that was read already."""
    [verification] = verify_links(store, (backup,), pinned)
    return verification


def verify_links(
    store: BlobStore,
    links: Sequence[StoredBackup],
    pinned: PinnedKeys,
    each: Callable[[Judge, Sequence[StoredBackup]], Iterable[HeaderVerification]] = map,
) -> list[HeaderVerification]:
    """The same for backups of one cluster that lean on one another; none of them is read again.

    In their order. `each` is `map`, or an executor's.
    """
    ref = links[0].ref
    cluster = read_cluster(store, ref.cluster, pinned)
    if cluster is None:
        raise ClusterUnknown(f"{ref.document} belongs to a cluster without a cluster.json")
    known = {link.ref: link for link in links}
    surroundings = Surroundings(
        _Sizes(store).of,
        lambda other: known.get(other) or _backup_of(store, other, pinned),
    )
    return [*each(lambda link: judge(link, cluster, surroundings), links)]


def judge(
    backup: StoredBackup, cluster: ClusterDocument, surroundings: Surroundings
) -> HeaderVerification:
    """The findings in the order of the document; the same blobs always give the same findings."""
    findings = (
        *_identity(backup, cluster),
        *_parts(backup, surroundings),
        *_key_records(backup, surroundings),
        *_links(backup, surroundings),
    )
    return HeaderVerification(backup, cluster, findings)


def _identity(backup: StoredBackup, cluster: ClusterDocument) -> Iterator[Finding]:
    document = backup.document
    claimed = (document.cluster_uuid, document.system_identifier)
    if claimed != (cluster.cluster_uuid, cluster.system_identifier):
        fact = (
            f"backup is of system {document.system_identifier} of cluster {document.cluster_uuid}, "
            f"registered is {cluster.system_identifier} of {cluster.cluster_uuid}"
        )
        yield _finding(backup.ref.document, ClusterIdentityDiffers(fact))


def _parts(backup: StoredBackup, surroundings: Surroundings) -> Iterator[Finding]:
    parts: tuple[Volume | SealedObject, ...] = (*backup.document.volumes, *backup.document.objects)
    for part in parts:
        name = backup.ref.blob(part.name)
        size = surroundings.size_of(name)
        if size is None:
            yield _finding(name, BlobNotFound("the document names it, but it is absent"))
        elif size != part.stored_size:
            fact = f"blob has {size} bytes, the document states {part.stored_size}"
            yield _finding(name, PartSizeDiffers(fact))


def _key_records(backup: StoredBackup, surroundings: Surroundings) -> Iterator[Finding]:
    kids = {backup.document.kid, *(item.kid for item in backup.document.objects)}
    for kid in sorted(kids):
        name = layout.key_record(backup.ref.cluster, kid)
        if surroundings.size_of(name) is None:
            yield _finding(name, BlobNotFound("parts are sealed under it, but it is absent"))


def _links(backup: StoredBackup, surroundings: Surroundings) -> Iterator[Finding]:
    """A previous backup may have expired; an ancestor may not as long as its children live."""
    previous = backup.document.previous
    if previous is not None:
        other = _named(backup, previous)
        found = surroundings.backup_of(other)
        if found is not None and found.digest != previous.digest:
            fact = f"has digest {found.digest}, backup {backup.ref.label} names {previous.digest}"
            yield _finding(other.document, ChainBroken(f"document {fact}"))
    yield from _chain(backup, surroundings)


def _chain(backup: StoredBackup, surroundings: Surroundings) -> Iterator[Finding]:
    """Down to the full backup, or to the first document that cannot be what its child names."""
    child = backup
    while (link := child.document.parent) is not None:
        ref = _named(child, link)
        parent = surroundings.backup_of(ref)
        if parent is None:
            yield _finding(ref.document, ChainBroken(f"{child.ref.label} needs it as its parent"))
            return
        broken = _broken(parent, child)
        if broken is not None:
            yield _finding(ref.document, broken)
            return
        if child.document.depth != parent.document.depth + 1:
            fact = f"depth {child.document.depth} on a parent of depth {parent.document.depth}"
            yield _finding(child.ref.document, ChainBroken(fact))
        child = parent


def _broken(parent: StoredBackup, child: StoredBackup) -> ChainBroken | None:
    try:
        check_link(parent, child)
    except ChainBroken as error:
        return error
    return None


def _named(backup: StoredBackup, link: BackupLink) -> BackupRef:
    return BackupRef(backup.ref.cluster, BackupLabel.parse(link.label))


def _finding(name: BlobName, error: PgkeepError) -> Finding:
    return Finding(code=error.code, object=str(name), detail=error.fact)


class _Sizes:
    """Bytes of blobs: of a backup's parts by one listing of its folder, not a request for each."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._folders: dict[BlobName, Mapping[BlobName, int]] = {}

    def of(self, name: BlobName) -> int | None:
        """None when it is absent."""
        if name.container == layout.EVIDENCE:
            return self._asked(name)
        folder = BlobName(name.container, name.path.rpartition("/")[0] + "/")
        if folder not in self._folders:
            blobs = self._store.list(folder.container, folder.path)
            self._folders[folder] = {blob.name: blob.size for blob in blobs}
        return self._folders[folder].get(name)

    def _asked(self, name: BlobName) -> int | None:
        try:
            return self._store.head(name).size
        except BlobNotFound:
            return None


def _backup_of(store: BlobStore, ref: BackupRef, pinned: PinnedKeys) -> StoredBackup | None:
    try:
        return read_backup(store, ref, pinned)
    except BackupNotFound:
        return None
    except PgkeepError as error:
        if is_unbelievable(error):
            return None
        raise
