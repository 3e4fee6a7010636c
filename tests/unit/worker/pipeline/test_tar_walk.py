"""The walker lists what `tarfile` lists, and refuses what PostgreSQL never sends."""

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup_index import MemberKind
from shared.errors import Corrupt, TarMalformed, TarMemberRefused
from worker.pipeline.tar_walk import BLOCK, TarMember, TarWalker

NAME_PART = st.text("abz019_.-é~", min_size=1, max_size=20).filter(lambda text: text.strip("."))
FILE_NAMES = st.lists(NAME_PART, min_size=1, max_size=4).map("/".join)


def entry(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """One member as PostgreSQL writes it: directories and links end in a slash."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    info.mode, info.mtime = 0o600, 1_700_000_000
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT, "utf-8"))
    if kind == tarfile.SYMTYPE:
        header[len(name.encode())] = ord("/")
    return resummed(header) + bytes([7]) * size + bytes(-size % BLOCK)


def resummed(header: bytearray) -> bytes:
    """The header with the checksum that its bytes ask for."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def walk(stream: bytes, chunk: int = 32 << 10) -> list[TarMember]:
    walker = TarWalker()
    members = [
        member
        for i in range(0, len(stream), chunk)
        for member in walker.feed(memoryview(stream)[i : i + chunk])
    ]
    walker.finish()
    return members


SAMPLE = (
    entry("backup_label", 224)
    + entry("pg_wal", kind=tarfile.DIRTYPE)
    + entry("base", kind=tarfile.DIRTYPE)
    + entry("base/1/1259", 8192)
    + entry("base/1/empty")
    + entry("pg_tblspc/16385", kind=tarfile.SYMTYPE, link="/mnt/fast disk")
    + entry("global/pg_control", 8192)
)


@given(st.integers(1, 3 * BLOCK))
def test_members_are_found_whatever_the_chunks(chunk: int) -> None:
    members = walk(SAMPLE, chunk)
    assert [(m.path, m.kind.value, m.size, m.data_offset) for m in members] == [
        (b"backup_label", "file", 224, 512),
        (b"pg_wal", "directory", 0, 1536),
        (b"base", "directory", 0, 2048),
        (b"base/1/1259", "file", 8192, 2560),
        (b"base/1/empty", "file", 0, 11264),
        (b"pg_tblspc/16385", "symlink", 0, 11776),
        (b"global/pg_control", "file", 8192, 12288),
    ]
    assert members[5].link_target == b"/mnt/fast disk"
    assert {(m.mode, m.mtime) for m in members} == {(0o600, 1_700_000_000)}


def test_a_member_is_reported_as_soon_as_its_header_is_complete() -> None:
    walker = TarWalker()
    stream = entry("a", 1000)
    assert walker.feed(stream[:511]) == []
    assert [member.path for member in walker.feed(stream[511:512])] == [b"a"]
    assert not walker.at_boundary
    assert walker.feed(stream[512:]) == []
    assert walker.at_boundary


@pytest.mark.parametrize("end", [b"", bytes(2 * BLOCK), bytes(20 * BLOCK)])
def test_a_stream_ends_with_or_without_zero_blocks(end: bytes) -> None:
    assert len(walk(SAMPLE + end)) == 7
    assert walk(end) == []


@given(st.dictionaries(FILE_NAMES, st.integers(0, 2000), max_size=8), st.integers(1, 5000))
def test_the_listing_equals_that_of_tarfile(files: dict[str, int], chunk: int) -> None:
    files = {name: size for name, size in files.items() if no_parent_in(name, files)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, size in files.items():
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as tar:
        expected = [(info.name.encode(), info.size, info.offset_data) for info in tar]
    members = walk(buffer.getvalue(), chunk)
    assert [(m.path, m.size, m.data_offset) for m in members] == expected


def no_parent_in(name: str, files: dict[str, int]) -> bool:
    parts = name.split("/")
    return not any("/".join(parts[:i]) in files for i in range(1, len(parts)))


def test_the_leading_dot_that_postgresql_writes_is_left_out() -> None:
    stream = entry("./pg_wal/archive_status", kind=tarfile.DIRTYPE)
    assert walk(stream)[0].path == b"pg_wal/archive_status"


def test_a_name_that_is_not_utf_8_is_kept_byte_by_byte() -> None:
    header = bytearray(entry("base/x"))
    header[:6] = b"\xff\xfe\x80abc"[:6]
    assert walk(resummed(header))[0].path == b"\xff\xfe\x80abc"


def test_a_file_beyond_8_gib_is_skipped_by_arithmetic() -> None:
    size = (8 << 30) + 1
    info = tarfile.TarInfo("base/1/big")
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"\x80" + size.to_bytes(11, "big")
    walker = TarWalker()
    assert walker.feed(resummed(header))[0].data_end == BLOCK + size
    hole = bytes(64 << 20)
    for _ in range(size // len(hole)):
        assert walker.feed(hole) == []
    walker.feed(bytes(BLOCK))
    assert [member.path for member in walker.feed(entry("next"))] == [b"next"]
    walker.finish()


def link(name: str, target: str = "/data") -> bytes:
    return entry(name, kind=tarfile.SYMTYPE, link=target)


REFUSED = {
    "absolute": entry("/etc/passwd"),
    "parent": entry("../x"),
    "parent within": entry("base/../../x"),
    "parent at the end": entry("base/.."),
    "here": entry("base/./1"),
    "here twice": entry("././base"),
    "only here": entry("./", kind=tarfile.DIRTYPE),
    "the same with and without here": entry("a") + entry("./a"),
    "empty part": entry("base//1"),
    "empty name": entry(""),
    "only a slash": entry("/", kind=tarfile.DIRTYPE),
    "file with a slash": entry("base/"),
    "hard link": entry("a", kind=tarfile.LNKTYPE, link="b"),
    "character device": entry("a", kind=tarfile.CHRTYPE),
    "block device": entry("a", kind=tarfile.BLKTYPE),
    "fifo": entry("a", kind=tarfile.FIFOTYPE),
    "contiguous": entry("a", kind=tarfile.CONTTYPE),
    "sparse": entry("a", kind=tarfile.GNUTYPE_SPARSE),
    "long name": entry("././@LongLink", 512, kind=tarfile.GNUTYPE_LONGNAME),
    "pax header": entry("a", 512, kind=tarfile.XHDTYPE),
    "old style file": entry("a", kind=tarfile.AREGTYPE),
    "unknown type": entry("a", kind=b"Z"),
    "link elsewhere": link("base/1"),
    "link without number": link("pg_tblspc/x"),
    "link too deep": link("pg_tblspc/1/2"),
    "link with newline": link("pg_tblspc/1\n"),
    "link without target": link("pg_tblspc/1", ""),
    "file with target": entry("a", link="b"),
    "directory with data": entry("a", 512, kind=tarfile.DIRTYPE),
    "duplicate": entry("a") + entry("a"),
    "duplicate of another kind": entry("a", kind=tarfile.DIRTYPE) + entry("a"),
    "below a link": link("pg_tblspc/1") + entry("pg_tblspc/1/x"),
    "far below a link": link("pg_tblspc/1") + entry("pg_tblspc/1/x/y/z"),
    "link over a directory in use": entry("pg_tblspc/1/x/y") + link("pg_tblspc/1"),
    "below a file": entry("a") + entry("a/b"),
    "file over a directory in use": entry("a/b/c") + entry("a"),
}  # fmt: skip


@pytest.mark.parametrize("stream", REFUSED.values(), ids=REFUSED.keys())
def test_a_member_that_postgresql_never_sends_is_refused(stream: bytes) -> None:
    with pytest.raises(TarMemberRefused):
        walk(stream)


def changed(position: int, new: bytes, *, sum_again: bool = True) -> bytes:
    header = bytearray(entry("a"))
    header[position : position + len(new)] = new
    return resummed(header) if sum_again else bytes(header)


MALFORMED = {
    "checksum": changed(0, b"b", sum_again=False),
    "gnu magic": changed(257, b"ustar  \0"),
    "no magic": changed(257, bytes(8)),
    "NUL inside the name": changed(0, b"a\0b"),
    "NUL inside the target": changed(157, b"a\0b"),
    "size with a letter": changed(124, b"0000000008x"),
    "negative size": changed(124, b"\xff" * 12),
    "size beyond off_t": changed(124, b"\x80" + b"\xff" * 11),
    "cut inside a header": entry("a")[:100],
    "cut inside the data": entry("a", 1000)[:-600],
    "cut inside the padding": entry("a", 1000)[:-1],
    "data missing": entry("a", 1000)[:512],
    "member behind the end": bytes(BLOCK) + entry("a"),
    "garbage behind the end": entry("a") + bytes(BLOCK) + b"x" * BLOCK,
    "shorter than it says": entry("a", 1024)[:-BLOCK] + entry("b", 512),
}


@pytest.mark.parametrize("stream", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_stream_that_does_not_hold_together_is_refused(stream: bytes) -> None:
    with pytest.raises(TarMalformed):
        walk(stream)


@given(st.data())
def test_a_damaged_stream_is_refused_or_every_member_stays_within_the_rules(
    data: st.DataObject,
) -> None:
    stream = bytearray(SAMPLE)
    for _ in range(data.draw(st.integers(1, 4))):
        header = data.draw(st.sampled_from([0, 1024, 1536, 2048, 10752, 11264, 11776]))
        at = header + data.draw(st.integers(0, BLOCK - 1))
        stream[at] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            stream[header : header + BLOCK] = resummed(stream[header : header + BLOCK])
    try:
        members = walk(bytes(stream))
    except Corrupt:
        return
    assert all(harmless(member) for member in members)
    assert len({member.path for member in members}) == len(members)


def harmless(member: TarMember) -> bool:
    parts = member.path.split(b"/")
    link_ok = member.kind is not MemberKind.SYMLINK or parts[0] == b"pg_tblspc"
    return link_ok and b"\0" not in member.path and not {b"", b".", b".."} & set(parts)


@given(st.binary(max_size=3000))
def test_random_bytes_are_refused(stream: bytes) -> None:
    if stream.strip(b"\0"):
        with pytest.raises(TarMalformed):
            walk(stream)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_walked(kind: Callable[[bytes], bytes]) -> None:
    assert len(TarWalker().feed(kind(SAMPLE))) == 7
