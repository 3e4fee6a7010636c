"""Names of blobs, both ways: parse(format(x)) == x, and format(parse(name)) == name."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.cluster import CLUSTER_NAME_PATTERN, ClusterName
from shared.domain.wal_segment import WalFileKind, WalFileName, WalObject, WalPiece
from shared.errors import InvalidInput
from shared.repository import layout
from shared.repository.blob_store import BlobName
from shared.repository.layout import BackupRef, BlobNameUnknown, ProofPointer, VolumeName
from shared.repository.reports import is_report

CLUSTERS = st.from_regex(CLUSTER_NAME_PATTERN, fullmatch=True).map(
    lambda text: ClusterName(text.rstrip("\n"))
)
LABELS = st.builds(
    BackupLabel.new,
    st.sampled_from(BackupKind),
    st.integers(0, 2**37).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
)
TIMES = st.integers(0, 2**57).map(
    lambda microseconds: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)
)
REFS = st.builds(BackupRef, CLUSTERS, LABELS)
VOLUMES = st.builds(
    VolumeName,
    st.one_of(st.just("pgdata"), st.integers(1, 2**32 - 1).map(str)),
    st.integers(0, 999_999),
)
KIDS = st.from_regex(r"k[a-z2-7]{26}", fullmatch=True)
NUMBERS = st.integers(0, 2**32 - 1)
TIMELINES = st.integers(1, 2**32 - 1)
WAL_OBJECTS: st.SearchStrategy[WalObject] = st.one_of(
    st.builds(WalFileName, st.just(WalFileKind.HISTORY), TIMELINES),
    st.builds(
        WalFileName,
        st.sampled_from([WalFileKind.SEGMENT, WalFileKind.PARTIAL]),
        TIMELINES,
        NUMBERS,
        NUMBERS,
    ),
    st.builds(WalFileName, st.just(WalFileKind.BACKUP), TIMELINES, NUMBERS, NUMBERS, NUMBERS),
    st.builds(
        WalPiece,
        TIMELINES,
        NUMBERS,
        NUMBERS,
        st.integers(0, 1 << 20),
        st.integers(2 << 20, 1 << 30),
    ),
)
MAKERS = {
    "drills": layout.drill_report,
    "verifications": layout.verification_report,
    "expiries": layout.expiry_report,
}
# What somebody might put into a container: nearly right, or anything.
NEARLY = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"base\.(pgdata|\d{1,11})\.\d{1,8}"),
    st.from_regex(r"[a-z-]{1,4}/keys/[a-z0-9]{1,5}(\.rewrap-\d{1,3})?\.json"),
    st.from_regex(r"[a-z]{1,4}/(drills|verifications|expiries)/[^/]{1,9}/report\.json"),
    st.from_regex(r"[a-z]{1,4}/expired/\d{8}T\d{6}Z-[FI]-[a-z2-7]{4}/[0-9a-f-]{36}\.json"),
    st.from_regex(r"[a-z]{1,4}/\d{8}T\d{6}Z-[FI]-[a-z2-7]{4}/[a-z.0-9]{1,20}"),
    st.from_regex(r"[a-z]{1,4}/verified/\d{8}T\d{6}Z-[FI]-[a-z2-7]{4}/\d{8}T\d{12}Z-[^/]{1,9}"),
    st.from_regex(r"[a-z]{1,4}/\d{8}T\d{6}Z-[FI]-[a-z2-7]{4}/backup\.json"),
    st.from_regex(r"[a-z]{1,4}/(0000000[12]/)?0000000[12]([0-9A-F]{16})?(\.[0-9a-z.-]{1,30})?"),
)


@given(REFS)
def test_a_document_s_name_tells_its_backup(ref: BackupRef) -> None:
    assert layout.backup_of_document(ref.document) == ref
    assert layout.is_backup_document(ref.document)
    assert ref.document.path.startswith(layout.backups_prefix(ref.cluster))


@given(VOLUMES)
def test_a_volume_s_name_is_read_back(name: VolumeName) -> None:
    assert VolumeName.parse(str(name)) == name


@given(CLUSTERS, KIDS, st.integers(0, 999_999))
def test_a_key_record_s_name_is_read_back(cluster: ClusterName, kid: str, rewrap: int) -> None:
    name = layout.key_record(cluster, kid, rewrap)
    assert layout.parse_key_record(name) == (cluster, kid, rewrap)
    assert name.path.startswith(layout.key_records_prefix(cluster, kid))


@given(CLUSTERS, KIDS)
def test_all_key_records_of_a_cluster_lie_below_one_prefix(cluster: ClusterName, kid: str) -> None:
    assert layout.key_record(cluster, kid).path.startswith(layout.key_records_prefix(cluster))


@given(CLUSTERS, WAL_OBJECTS)
def test_the_name_of_what_lies_in_the_wal_archive_is_read_back(
    cluster: ClusterName, item: WalObject
) -> None:
    name = layout.wal_blob(cluster, item)
    assert layout.parse_wal(name) == (cluster, item)
    assert name.container == layout.WAL
    assert name.path.startswith(layout.wal_prefix(cluster))
    assert layout.wal_object_name(item) == f"wal/{item}"
    history = isinstance(item, WalFileName) and item.kind is WalFileKind.HISTORY
    assert name.path.startswith(layout.wal_prefix(cluster, item.timeline)) != history


@given(CLUSTERS, WAL_OBJECTS, st.integers(0, 24))
def test_a_prefix_leads_to_the_segments_whose_names_begin_so(
    cluster: ClusterName, item: WalObject, length: int
) -> None:
    path = layout.wal_blob(cluster, item).path
    if not path.endswith(".history"):
        assert path.startswith(layout.wal_prefix(cluster, item.timeline, str(item)[:length]))


@pytest.mark.parametrize(
    ("container", "path"),
    [
        ("wal", "main/00000002/0000000100000000000000A7"),
        ("wal", "main/0000000100000000000000A7"),
        ("wal", "main/00000001/00000001.history"),
        ("wal", "main/00000002/00000001.history"),
        ("wal", "main/00000001/deeper/0000000100000000000000A7"),
        ("wal", "main/00000001/0000000100000000000000A7.gz"),
        ("wal", "Main/00000001/0000000100000000000000A7"),
        ("wal", "0000000100000000000000A7"),
        ("full", "main/00000001/0000000100000000000000A7"),
    ],
)
def test_wal_in_the_wrong_place_is_refused(container: str, path: str) -> None:
    with pytest.raises(InvalidInput):
        layout.parse_wal(BlobName(container, path))


@given(CLUSTERS, st.uuids().map(str))
def test_a_report_s_name_is_read_back(cluster: ClusterName, report: str) -> None:
    drill = layout.drill_report(cluster, report)
    verification = layout.verification_report(cluster, report)
    assert layout.parse_report(drill) == (cluster, "drills", report)
    assert layout.parse_report(verification) == (cluster, "verifications", report)
    expiry = layout.expiry_report(cluster, report)
    assert layout.parse_report(expiry) == (cluster, "expiries", report)
    assert expiry.path.startswith(layout.expiry_reports_prefix(cluster))


@given(REFS, st.uuids().map(str))
def test_a_tombstone_s_name_is_read_back(ref: BackupRef, run: str) -> None:
    name = layout.tombstone(ref, run)
    assert layout.parse_tombstone(name) == (ref, run)
    assert name.path.startswith(layout.tombstones_prefix(ref.cluster, ref.label))
    assert name.path.startswith(layout.tombstones_prefix(ref.cluster))
    assert not is_report(name)


@given(
    REFS, st.sampled_from(["backup.json", "index", "facts", "base.pgdata.0000", "base.16384.12345"])
)
def test_a_blob_of_a_backup_is_read_back(ref: BackupRef, own: str) -> None:
    assert layout.parse_backup_blob(ref.blob(own)) == (ref, own)


@given(REFS, TIMES, TIMES, st.uuids().map(str))
def test_a_pointer_s_name_is_read_back_and_those_of_a_backup_sort_by_time(
    ref: BackupRef, at: datetime, other: datetime, report: str
) -> None:
    name = layout.proof_pointer(ProofPointer(ref, at, report))
    assert layout.parse_proof_pointer(name) == ProofPointer(ref, at, report)
    assert name.path.startswith(layout.proofs_prefix(ref))
    assert (name < layout.proof_pointer(ProofPointer(ref, other, report))) == (at < other)
    assert not is_report(name)


@given(NEARLY, st.sampled_from(layout.CONTAINERS))
def test_a_foreign_name_is_refused_or_is_the_one_that_we_would_write(
    path: str, container: str
) -> None:
    name = BlobName(container, path)
    with suppress(InvalidInput):
        assert layout.backup_of_document(name).document == name
    with suppress(InvalidInput):
        assert layout.key_record(*layout.parse_key_record(name)) == name
    with suppress(InvalidInput):
        cluster, kind, report = layout.parse_report(name)
        assert MAKERS[kind](cluster, report) == name
    with suppress(InvalidInput):
        assert layout.tombstone(*layout.parse_tombstone(name)) == name
    with suppress(InvalidInput):
        ref, own = layout.parse_backup_blob(name)
        assert ref.blob(own) == name
    with suppress(InvalidInput):
        assert layout.proof_pointer(layout.parse_proof_pointer(name)) == name
    with suppress(InvalidInput):
        assert layout.wal_blob(*layout.parse_wal(name)) == name
    with suppress(InvalidInput):
        assert str(VolumeName.parse(path)) == path


@pytest.mark.parametrize(
    ("container", "path"),
    [
        ("incremental", "main/20261122T030000Z-F-k3x7/backup.json"),
        ("evidence", "main/20261122T030000Z-F-k3x7/backup.json"),
        ("full", "main/20261122T030000Z-F-k3x7/deeper/backup.json"),
        ("full", "Main/20261122T030000Z-F-k3x7/backup.json"),
    ],
)
def test_a_document_in_the_wrong_place_is_refused(container: str, path: str) -> None:
    with pytest.raises(BlobNameUnknown) as refused:
        layout.backup_of_document(BlobName(container, path))
    assert f"{container}/{path}" in refused.value.fact


@pytest.mark.parametrize(
    "text", ["base.pgdata.00001", "base.0.0000", "base.pgdata.\u0660\u0660\u0660\u0660", "base."]
)
def test_a_volume_has_one_name_only(text: str) -> None:
    with pytest.raises(BlobNameUnknown):
        VolumeName.parse(text)


def test_u15_the_object_s_name_for_the_seal_leaves_out_the_cluster() -> None:
    ref = BackupRef(ClusterName("main"), BackupLabel("20261122T030000Z-F-k3x7"))
    assert ref.object_name("index") == "full/20261122T030000Z-F-k3x7/index"
    assert str(ref.blob("index")) == "full/main/20261122T030000Z-F-k3x7/index"
    assert str(layout.lock(ref.cluster, "backup")) == "state/locks/main/backup.json"
