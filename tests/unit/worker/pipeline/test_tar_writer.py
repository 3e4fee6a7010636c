"""What is written is what PostgreSQL would have sent: the walker and `tarfile` read it back."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup_index import MemberKind
from shared.errors import TarMemberRefused
from worker.pipeline.tar_walk import BLOCK, TarMember, TarWalker
from worker.pipeline.tar_writer import tar_header, tar_padding

PARTS = st.binary(min_size=1, max_size=30).filter(
    lambda part: not {0, ord("/")} & set(part) and part.strip(b".")
)
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(b"/".join).filter(lambda path: len(path) < 99)
TARGETS = st.binary(min_size=1, max_size=99).filter(lambda target: 0 not in target)
MODES = st.integers(0, 0o7777)
TIMES = st.integers(0, (1 << 63) - 1)
# From 8 GiB on a number does not fit its octal field.
SIZES = st.integers(0, 3 * BLOCK) | st.sampled_from([(8 << 30) - 1, 8 << 30, (1 << 63) - 1024])


def members_of(header: bytes) -> list[TarMember]:
    return TarWalker().feed(header)


@given(PATHS, SIZES, MODES, TIMES)
def test_the_walker_reads_back_a_file(path: bytes, size: int, mode: int, mtime: int) -> None:
    header = tar_header(path, MemberKind.FILE, size=size, mode=mode, mtime=mtime)
    expected = TarMember(path, MemberKind.FILE, size, mode, mtime, b"", BLOCK)
    assert members_of(header) == [expected]
    assert (size + len(tar_padding(size))) % BLOCK == 0


@given(PATHS, MODES, TIMES, TARGETS, st.integers(1, 4294967295))
def test_the_walker_reads_back_a_directory_and_a_link(
    path: bytes, mode: int, mtime: int, target: bytes, oid: int
) -> None:
    directory = tar_header(path, MemberKind.DIRECTORY, mode=mode, mtime=mtime)
    assert members_of(directory) == [
        TarMember(path, MemberKind.DIRECTORY, 0, mode, mtime, b"", BLOCK)
    ]
    name = b"pg_tblspc/%d" % oid
    link = tar_header(name, MemberKind.SYMLINK, mode=mode, mtime=mtime, link_target=target)
    assert members_of(link) == [TarMember(name, MemberKind.SYMLINK, 0, mode, mtime, target, BLOCK)]


def test_python_reads_it_as_an_archive_of_the_server() -> None:
    stream = io.BytesIO(
        tar_header(b"base", MemberKind.DIRECTORY, mode=0o700, mtime=1_700_000_000)
        + tar_header(b"base/caf\xe9", MemberKind.FILE, size=5, mode=0o640, mtime=1_700_000_001)
        + b"bytes"
        + tar_padding(5)
        + tar_header(
            b"pg_tblspc/16384", MemberKind.SYMLINK, mode=0o777, mtime=0, link_target=b"/mnt/a b"
        )
    )
    with tarfile.open(fileobj=stream, errors="surrogateescape") as archive:
        directory, file, link = archive.getmembers()
        content = archive.extractfile(file)
        assert content is not None
        assert content.read() == b"bytes"
    assert (directory.name, directory.isdir(), directory.mode) == ("base", True, 0o700)
    assert (file.name, file.mode, file.mtime) == ("base/caf\udce9", 0o640, 1_700_000_001)
    assert (file.uname, file.gname, file.uid, file.gid) == ("postgres", "postgres", 0, 0)
    assert (link.name, link.issym(), link.linkname) == ("pg_tblspc/16384/", True, "/mnt/a b")


@pytest.mark.parametrize(("path", "target"), [(b"a" * 100, b""), (b"pg_tblspc/1", b"/" * 100)])
def test_a_name_that_postgresql_would_not_send_is_refused(path: bytes, target: bytes) -> None:
    kind = MemberKind.SYMLINK if target else MemberKind.FILE
    with pytest.raises(TarMemberRefused, match="a name of 100 bytes"):
        tar_header(path, kind, mode=0o600, mtime=0, link_target=target)
