"""An index that says of a tar stream what is not so is found out, at the member where it begins."""

import io
import tarfile
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup_index import (
    BackupIndex,
    IncrementalBlocks,
    IndexedMember,
    IndexedVolume,
    MemberKind,
    MemberTable,
)
from shared.domain.lsn import Lsn
from shared.errors import PgkeepError
from shared.repository.documents import BackupDocument, BackupLink
from tests.harness.signed_repository import backup_document
from worker.commands.file_proof import ArchiveProof, FileProof
from worker.commands.index_proof import IndexDiffers, check_parts, check_volume, header_of
from worker.commands.label_proof import BackupLabelDiffers, check_label
from worker.postgres.backup_manifest import BackupManifest, ManifestFile
from worker.postgres.incremental_file import HeaderReader
from worker.postgres.manifest_files import ManifestFiles

BLOCK = 8192
LINK = BackupLink(label="20261122T030000Z-F-aaaa", digest="0" * 64)
BLOCKS = st.builds(
    lambda truncation, blocks: IncrementalBlocks(truncation, array("I", sorted(blocks))),
    st.integers(0, 1 << 17),
    st.sets(st.integers(0, (1 << 17) - 1), max_size=40),
)


def held(truncation: int, *blocks: int) -> IncrementalBlocks:
    return IncrementalBlocks(truncation, array("I", blocks))


PARTS = {
    b"base/5/INCREMENTAL.1259": held(4, 1, 3),
    b"base/5/INCREMENTAL.1260": held(7),
    b"base/5/INCREMENTAL.1261": held(2, *range(3000)),
}
FILES = {
    b"PG_VERSION": b"17\n",
    **{path: header_of(part, BLOCK) + b"x" * len(part.blocks) for path, part in PARTS.items()},
    b"base/5/1262": b"y" * 700,
}


def stream(files: dict[bytes, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path.decode())
            info.size, info.mode = len(data), 0o600
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def members(files: dict[bytes, bytes]) -> list[IndexedMember]:
    """What a truthful index says of the stream."""
    made, offset = [], 512
    for path, data in files.items():
        made.append(
            IndexedMember(
                archive="pgdata",
                path=path,
                kind=MemberKind.FILE,
                size=len(data),
                mode=0o600,
                offset=offset,
                incremental=PARTS.get(path),
            )
        )
        offset += len(data) + -len(data) % 512 + 512
    return made


def index_of(told: Sequence[IndexedMember]) -> BackupIndex:
    return BackupIndex("label", (), MemberTable(told))


def found(told: Sequence[IndexedMember], piece: int = 1 << 20) -> list[tuple[str, str]]:
    """Object and fact of each finding about the stream of FILES, fed in pieces."""
    notes: list[tuple[str, PgkeepError]] = []
    told_files = ((path, ManifestFile(len(data), "", None, b"")) for path, data in FILES.items())
    manifest = BackupManifest(2, 7, ManifestFiles(told_files), ())
    files = FileProof(manifest, lambda where, error: notes.append((where, error)))
    proof = ArchiveProof("pgdata", files, index_of(told), BLOCK)
    raw = stream(FILES)
    for start in range(0, len(raw), piece):
        proof.feed(raw[start : start + piece])
    proof.finish()
    files.finish()
    assert files.files == len(FILES)
    assert {type(error) for _, error in notes} <= {IndexDiffers}
    return [(where, error.fact) for where, error in notes]


@pytest.mark.parametrize("piece", [1 << 20, 512, 999, 7])
def test_a_truthful_index_passes_whatever_the_pieces(piece: int) -> None:
    assert found(members(FILES), piece) == []


def with_blocks(number: int, blocks: IncrementalBlocks) -> list[IndexedMember]:
    told = members(FILES)
    told[number] = replace(told[number], incremental=blocks)
    return told


@pytest.mark.parametrize(
    ("number", "lie"),
    [
        (1, held(4, 1, 2)),
        (1, held(5, 1, 3)),
        (1, held(4, 1)),
        (1, held(4, 1, 3, 4)),
        (2, held(6)),
        (2, held(7, 0)),
        (3, held(2, *range(2999), 3001)),
    ],
    ids=["block", "truncation", "fewer", "more", "length of none", "one of none", "last of many"],
)
@pytest.mark.parametrize("piece", [1 << 20, 512])
def test_c09_an_index_that_lies_about_blocks_is_found_at_the_file(
    number: int, lie: IncrementalBlocks, piece: int
) -> None:
    path = members(FILES)[number].path
    assert found(with_blocks(number, lie), piece) == [
        (path.decode(), f"{path!r} holds other blocks than the index says")
    ]


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda told: told[:-1], "b'base/5/1262' is not where the index has it"),
        (lambda told: told[1:], "b'PG_VERSION' is not where the index has it"),
        (lambda told: [*told, replace(told[0], path=b"more")], "b'more' is in the index only"),
        (lambda told: [replace(told[0], offset=0), *told[1:]], "b'PG_VERSION' is not where"),
        (lambda told: [replace(told[0], size=2), *told[1:]], "b'PG_VERSION' is not where"),
        (lambda told: [replace(told[0], mode=0o644), *told[1:]], "b'PG_VERSION' is not where"),
    ],
    ids=["lost last", "lost first", "too many", "offset", "size", "mode"],
)
def test_an_index_that_misplaces_a_member_is_found_once(
    change: Callable[[list[IndexedMember]], list[IndexedMember]], fact: str
) -> None:
    [(where, told)] = found(change(members(FILES)))
    assert where == "index"
    assert told.startswith(f"archive pgdata: {fact}")


@given(BLOCKS)
def test_the_header_is_what_the_reader_of_headers_reads(blocks: IncrementalBlocks) -> None:
    reader = HeaderReader(b"f", blocks.file_size(BLOCK), BLOCK)
    reader.feed(memoryview(header_of(blocks, BLOCK)))
    assert reader.result() == blocks
    assert len(header_of(blocks, BLOCK)) == blocks.data_offset(BLOCK)


def parts(told: Sequence[IndexedMember], document: BackupDocument) -> list[tuple[str, str]]:
    notes: list[tuple[str, str]] = []
    check_parts(index_of(told), document, lambda where, error: notes.append((where, error.code)))
    return notes


def test_c08_only_incremental_backups_hold_parts_of_files_and_name_them_so() -> None:
    incremental, full = backup_document("demo", parent=LINK), backup_document("demo")
    told = members(FILES)
    assert parts(told, incremental) == []
    assert parts(told, full) == [(path.decode(), "file-in-part") for path in PARTS]
    plain = [replace(member, incremental=None) for member in told]
    assert parts(plain, incremental) == [(path.decode(), "index-differs") for path in PARTS]
    odd = [replace(told[-1], incremental=held(1))]
    assert parts(odd, incremental) == [("base/5/1262", "index-differs")]
    assert parts(odd, full) == [("base/5/1262", "index-differs")]


def volume(**changes: Any) -> BackupIndex:
    fields: dict[str, Any] = {
        "name": "base.pgdata.0000",
        "archive": "pgdata",
        "number": 0,
        "start": 0,
        "stored_size": 20,
        "frame_stored": (5, 6),
        "frame_plain": (30, 10),
    }
    return BackupIndex("label", (IndexedVolume(**{**fields, **changes}),), MemberTable())


def test_an_index_of_other_volumes_or_frames_is_refused() -> None:
    [described] = backup_document("demo").volumes
    frames = [(5, 30), (6, 10)]
    check_volume(volume(), described, frames)
    lies: list[dict[str, Any]] = [
        {"name": "base.pgdata.0001"},
        {"archive": "16385"},
        {"number": 1},
        {"stored_size": 21},
        {"frame_stored": (6, 5)},
        {"frame_plain": (10, 30)},
        {"frame_stored": (11,), "frame_plain": (40,)},
    ]
    for lie in lies:
        with pytest.raises(IndexDiffers, match=r"base\.pgdata\.0000"):
            check_volume(volume(**lie), described, frames)


LABEL = (
    b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n"
    b"CHECKPOINT LOCATION: 0/2000060\n"
    b"START TIMELINE: 1\n"
)
FROM = b"INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n"
PARENT = backup_document("demo", start_lsn=Lsn.parse("0/1000028"))


def test_a_backup_label_names_the_document_s_start_and_parent() -> None:
    full, incremental = backup_document("demo"), backup_document("demo", parent=LINK)
    check_label(LABEL, full, None)
    check_label(LABEL + FROM, incremental, PARENT)
    check_label(LABEL + FROM, incremental, None)


@pytest.mark.parametrize(
    ("raw", "changes", "parent", "fact"),
    [
        (LABEL, {"start_lsn": Lsn(1)}, None, "starts at 0/2000028 on timeline 1, the document at"),
        (LABEL, {"timeline": 2}, None, "the document at 0/2000028 on timeline 2"),
        (LABEL, {"parent": LINK}, PARENT, "is not that of one that is incremental"),
        (LABEL + FROM, {}, None, "is not that of one that is full"),
        (LABEL + FROM, {"parent": LINK}, PARENT.model_copy(update={"timeline": 2}), "builds on"),
        (
            LABEL + FROM,
            {"parent": LINK},
            PARENT.model_copy(update={"start_lsn": Lsn(1)}),
            "builds on 0/1000028 on timeline 1, parent .* starts at 0/1 on timeline 1",
        ),
    ],
)
def test_c03_a_backup_label_of_another_place_or_parent_is_refused(
    raw: bytes, changes: dict[str, Any], parent: BackupDocument | None, fact: str
) -> None:
    with pytest.raises(BackupLabelDiffers, match=fact):
        check_label(raw, backup_document("demo", **changes), parent)
