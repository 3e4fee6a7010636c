"""The only place that knows a blob path: names of everything the repository holds, both ways.

    full|incremental/<cluster>/<label>/base.<tablespace-oid|pgdata>.<volume>   data volumes
                                      /backup_manifest · /index · /facts       sealed objects
                                      /backup.json                             backup document, last
    wal/<cluster>/<timeline>/<segment>                                         whole segment
                            /<segment>.<start>-<stop>.partial                  received piece of one
                            /<segment>.partial · .<offset>.backup              PostgreSQL's own
                 /<timeline>.history
    evidence/<cluster>/cluster.json · keys/<kid>.json · keys/<kid>.rewrap-<n>.json
                      /verifications/<id>/report.json · drills/<id>/report.json
                      /audits/<id>/report.json
                      /expiries/<id>/report.json                             what a run deleted
                      /verified/<label>/<UTC time>-<id>      empty: finds a report by its backup
            /_audit/<number of 12 digits>.json               who changed what; no cluster's name
                      /expired/<label>/<id>.json             tombstone, before a backup is deleted
    state/locks/<name>.json                                                    leases

`parse(format(x)) == x` is a property test.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.cluster import CLUSTER_NAME_PATTERN, ClusterName, cluster_name
from shared.domain.wal_segment import WalFileKind, WalFileName, WalObject, parse_wal_object
from shared.errors import InvalidInput
from shared.repository.blob_store import BlobName

EVIDENCE = "evidence"
STATE = "state"
WAL = "wal"
CONTAINERS = ("full", "incremental", WAL, "dump", EVIDENCE, STATE)

PGDATA_ARCHIVE = "pgdata"
BACKUP_DOCUMENT = "backup.json"
BACKUP_MANIFEST = "backup_manifest"
INDEX = "index"
FACTS = "facts"

AUDIT_PREFIX = "_audit/"
AUDIT_DIGITS = 12

_CLUSTER = CLUSTER_NAME_PATTERN.strip("^$").replace("(", "(?:")
_DOCUMENT = re.compile(rf"(?P<cluster>{_CLUSTER})/(?P<label>[^/]+)/backup\.json")
_VOLUME = re.compile(
    r"base\.(?P<archive>pgdata|[1-9]\d{0,9})\.(?P<number>\d{4}|[1-9]\d{4,5})", re.ASCII
)
_REPORT = re.compile(
    rf"(?P<cluster>{_CLUSTER})/(?P<kind>verifications|drills|expiries)/(?P<id>[^/]+)/report\.json"
)
_KEY = re.compile(
    rf"(?P<cluster>{_CLUSTER})/keys/(?P<kid>[a-z0-9]+)(?:\.rewrap-(?P<n>[1-9]\d*))?\.json",
    re.ASCII,
)
_PROOF = re.compile(
    rf"(?P<cluster>{_CLUSTER})/verified/(?P<label>[^/]+)/(?P<time>\d{{8}}T\d{{12}}Z)-(?P<id>[^/]+)",
    re.ASCII,
)
_TOMBSTONE = re.compile(
    rf"(?P<cluster>{_CLUSTER})/expired/(?P<label>[^/]+)/(?P<run>[0-9a-f-]{{36}})\.json"
)
_PART = re.compile(rf"(?P<cluster>{_CLUSTER})/(?P<label>[^/]+)/(?P<name>[^/]+)")
_AUDIT = re.compile(rf"{AUDIT_PREFIX}(?P<number>\d{{{AUDIT_DIGITS}}})\.json", re.ASCII)
_PROOF_TIME = "%Y%m%dT%H%M%S%fZ"  # as precise as a report's own time, and sorted by it
_WAL_FOLDER = re.compile(
    rf"(?P<cluster>{_CLUSTER})/(?:(?P<timeline>[0-9A-F]{{8}})/)?(?P<name>[^/]+)"
)


class BlobNameUnknown(InvalidInput):
    """A blob whose name is none of the repository's."""

    code = "blob-name-unknown"
    hint = "Only pgkeep should write to the repository's containers; look at who wrote this blob."


@dataclass(frozen=True, slots=True, order=True)
class BackupRef:
    """One backup of one cluster; the kind is part of the label."""

    cluster: ClusterName
    label: BackupLabel

    @property
    def kind(self) -> BackupKind:
        return self.label.kind

    def blob(self, name: str) -> BlobName:
        """The blob of this backup that the document calls `name`."""
        return BlobName(self.kind.value, f"{self.cluster}/{self.label}/{name}")

    @property
    def document(self) -> BlobName:
        return self.blob(BACKUP_DOCUMENT)

    def object_name(self, name: str) -> str:
        """What the AAD calls the sealed object: without the cluster, which has its own line."""
        return f"{self.kind.value}/{self.label}/{name}"


@dataclass(frozen=True, slots=True, order=True)
class VolumeName:
    """`archive` is `pgdata` or a tablespace's OID in decimal; volumes count from 0."""

    archive: str
    number: int

    def __str__(self) -> str:
        return f"base.{self.archive}.{self.number:04d}"

    @classmethod
    def parse(cls, text: str) -> "VolumeName":
        match = _VOLUME.fullmatch(text)
        if match is None:
            raise BlobNameUnknown(f"{text!r} is not the name of a volume")
        return cls(match["archive"], int(match["number"]))


@dataclass(frozen=True, slots=True)
class ProofPointer:
    """Says by its name alone which verification report is about a backup; proves nothing."""

    backup: BackupRef
    at: datetime
    report: str


def backup_of_document(name: BlobName) -> BackupRef:
    """The backup whose document has this name. Raises BlobNameUnknown, BackupLabelInvalid."""
    match = _DOCUMENT.fullmatch(name.path)
    if match is None or name.container not in {kind.value for kind in BackupKind}:
        raise BlobNameUnknown(f"{name} is not the name of a backup document")
    ref = BackupRef(cluster_name(match["cluster"]), BackupLabel.parse(match["label"]))
    if ref.document != name:
        raise BlobNameUnknown(f"{name} holds a label of another kind")
    return ref


def parse_backup_blob(name: BlobName) -> tuple[BackupRef, str]:
    """Whose blob this is, and what the backup calls it. Raises BlobNameUnknown,
    BackupLabelInvalid.
    """
    match = _PART.fullmatch(name.path)
    if match is None or name.container not in {kind.value for kind in BackupKind}:
        raise BlobNameUnknown(f"{name} is not the name of a backup's blob")
    ref = BackupRef(cluster_name(match["cluster"]), BackupLabel.parse(match["label"]))
    own = match["name"]
    if own not in {BACKUP_DOCUMENT, BACKUP_MANIFEST, INDEX, FACTS}:
        own = str(VolumeName.parse(own))
    if ref.blob(own) != name:
        raise BlobNameUnknown(f"{name} lies where backup {ref.label} cannot")
    return ref, own


def is_backup_document(name: BlobName) -> bool:
    return name.path.endswith(f"/{BACKUP_DOCUMENT}")


def backups_prefix(cluster: ClusterName) -> str:
    """Prefix in a backup container below which all backups of the cluster lie, oldest first."""
    return f"{cluster}/"


def wal_blob(cluster: ClusterName, item: WalObject) -> BlobName:
    if isinstance(item, WalFileName) and item.kind is WalFileKind.HISTORY:
        return BlobName(WAL, f"{cluster}/{item}")
    return BlobName(WAL, f"{wal_prefix(cluster, item.timeline)}{item}")


def wal_object_name(item: WalObject) -> str:
    """What the AAD calls the sealed object: `wal/0000000100000000000000A7`."""
    return f"{WAL}/{item}"


def wal_prefix(cluster: ClusterName, timeline: int | None = None, segments: str = "") -> str:
    """Prefix in the container `wal`: of the cluster's archive, of one timeline in it, or of those
    of its segments whose names begin with `segments`.
    """
    if timeline is None:
        return f"{cluster}/"
    return f"{cluster}/{timeline:08X}/{segments}"


def parse_wal(name: BlobName) -> tuple[ClusterName, WalObject]:
    """Raises BlobNameUnknown, WalFileNameInvalid."""
    match = _WAL_FOLDER.fullmatch(name.path)
    if match is None or name.container != WAL:
        raise BlobNameUnknown(f"{name} is not the name of a WAL file")
    cluster, item = cluster_name(match["cluster"]), parse_wal_object(match["name"])
    if wal_blob(cluster, item) != name:
        raise BlobNameUnknown(f"{name} lies in another timeline's folder")
    return cluster, item


def cluster_document(cluster: ClusterName) -> BlobName:
    return BlobName(EVIDENCE, f"{cluster}/cluster.json")


def key_record(cluster: ClusterName, kid: str, rewrap: int = 0) -> BlobName:
    """`rewrap` 0 is the first record; rotation adds 1, 2, … beside it."""
    suffix = f".rewrap-{rewrap}" if rewrap else ""
    return BlobName(EVIDENCE, f"{cluster}/keys/{kid}{suffix}.json")


def key_records_prefix(cluster: ClusterName, kid: str | None = None) -> str:
    """Prefix in the container `evidence`: of one data key's records, or of all of the cluster's."""
    return f"{cluster}/keys/" if kid is None else f"{cluster}/keys/{kid}."


def parse_key_record(name: BlobName) -> tuple[ClusterName, str, int]:
    """Cluster, kid and rewrap number. Raises BlobNameUnknown."""
    match = _KEY.fullmatch(name.path)
    if match is None or name.container != EVIDENCE:
        raise BlobNameUnknown(f"{name} is not the name of a key record")
    return cluster_name(match["cluster"]), match["kid"], int(match["n"] or 0)


def verification_report(cluster: ClusterName, report_id: str) -> BlobName:
    path = f"{verification_reports_prefix(cluster)}{report_id}/report.json"
    return BlobName(EVIDENCE, path)


def verification_reports_prefix(cluster: ClusterName) -> str:
    """Prefix in the container `evidence`."""
    return f"{cluster}/verifications/"


def drill_report(cluster: ClusterName, drill_id: str) -> BlobName:
    return BlobName(EVIDENCE, f"{cluster}/drills/{drill_id}/report.json")


def audit_report(cluster: ClusterName, audit_id: str) -> BlobName:
    return BlobName(EVIDENCE, f"{cluster}/audits/{audit_id}/report.json")


def drill_reports_prefix(cluster: ClusterName) -> str:
    """Prefix in the container `evidence`."""
    return f"{cluster}/drills/"


def expiry_report(cluster: ClusterName, run: str) -> BlobName:
    return BlobName(EVIDENCE, f"{expiry_reports_prefix(cluster)}{run}/report.json")


def expiry_reports_prefix(cluster: ClusterName) -> str:
    """Prefix in the container `evidence`; the folders below it are named by their runs."""
    return f"{cluster}/expiries/"


def tombstone(backup: BackupRef, run: str) -> BlobName:
    return BlobName(EVIDENCE, f"{tombstones_prefix(backup.cluster)}{backup.label}/{run}.json")


def tombstones_prefix(cluster: ClusterName, label: BackupLabel | None = None) -> str:
    """Prefix in the container `evidence`: of one backup's tombstones, or all of the cluster's."""
    return f"{cluster}/expired/" if label is None else f"{cluster}/expired/{label}/"


def parse_tombstone(name: BlobName) -> tuple[BackupRef, str]:
    """The backup, and the run that deletes it. Raises BlobNameUnknown, BackupLabelInvalid."""
    match = _TOMBSTONE.fullmatch(name.path)
    if match is None or name.container != EVIDENCE:
        raise BlobNameUnknown(f"{name} is not the name of a tombstone")
    ref = BackupRef(cluster_name(match["cluster"]), BackupLabel.parse(match["label"]))
    return ref, match["run"]


def parse_report(name: BlobName) -> tuple[ClusterName, str, str]:
    """Cluster; `verifications`, `drills` or `expiries`; the report's id. Raises BlobNameUnknown."""
    match = _REPORT.fullmatch(name.path)
    if match is None or name.container != EVIDENCE:
        raise BlobNameUnknown(f"{name} is not the name of a report")
    return cluster_name(match["cluster"]), match["kind"], match["id"]


def proof_pointer(pointer: ProofPointer) -> BlobName:
    time = pointer.at.astimezone(UTC).strftime(_PROOF_TIME)
    path = f"{proofs_prefix(pointer.backup)}{time}-{pointer.report}"
    return BlobName(EVIDENCE, path)


def proofs_prefix(backup: BackupRef) -> str:
    """Prefix in the container `evidence`: of the pointers to a backup's verifications, by time."""
    return f"{verified_prefix(backup.cluster)}{backup.label}/"


def verified_prefix(cluster: ClusterName) -> str:
    """Prefix in the container `evidence`; the folders below it are labels of verified backups."""
    return f"{cluster}/verified/"


def parse_proof_pointer(name: BlobName) -> ProofPointer:
    """Raises BlobNameUnknown, BackupLabelInvalid."""
    match = _PROOF.fullmatch(name.path)
    if match is None or name.container != EVIDENCE:
        raise BlobNameUnknown(f"{name} is not the name of a pointer to a verification")
    ref = BackupRef(cluster_name(match["cluster"]), BackupLabel.parse(match["label"]))
    try:
        at = datetime.strptime(match["time"], _PROOF_TIME).replace(tzinfo=UTC)
    except ValueError:
        raise BlobNameUnknown(f"{name} holds no valid time") from None
    pointer = ProofPointer(ref, at, match["id"])
    if proof_pointer(pointer) != name:
        raise BlobNameUnknown(f"{name} is not how a pointer to a verification is written")
    return pointer


def audit_event(number: int) -> BlobName:
    """Of the audit trail, which is one for the whole repository; sorts by number."""
    return BlobName(EVIDENCE, f"{AUDIT_PREFIX}{number:0{AUDIT_DIGITS}d}.json")


def parse_audit_event(name: BlobName) -> int:
    """Raises BlobNameUnknown."""
    match = _AUDIT.fullmatch(name.path)
    if match is None or name.container != EVIDENCE:
        raise BlobNameUnknown(f"{name} is not the name of an audit event")
    return int(match["number"])


def lock(cluster: ClusterName, what: str) -> BlobName:
    return BlobName(STATE, f"locks/{cluster}/{what}.json")
