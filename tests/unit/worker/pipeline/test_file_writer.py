"""Writing a data directory: nothing planted is followed, nothing half-done looks finished."""

import os
import resource
import signal
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.file_versions import PlannedFile
from shared.domain.tablespace_places import TablespaceLocation
from worker.pipeline.disk_room import unfinished_bytes
from worker.pipeline.file_writer import (
    MARKER,
    DiskFull,
    Owner,
    TargetNotEmpty,
    TargetRunning,
    TargetTree,
    TargetUnusable,
    check_restorable_into,
    mode_of,
)

CONTROL = PlannedFile(b"global/pg_control", 4, 0o600)
FILES = [PlannedFile(b"base/1/1259", 6, 0o600), PlannedFile(b"PG_VERSION", 3, 0o600), CONTROL]
DIRECTORIES = [
    PlannedFile(path, 0, 0o700) for path in (b"base", b"base/1", b"global", b"pg_tblspc")
]
HIDDEN = "global/pg_control.restoring"


def put(tree: TargetTree, file: PlannedFile, offset: int, data: bytes) -> None:
    assert tree.write(file, [(offset, memoryview(data))]) == len(data)


def fill(tree: TargetTree) -> None:
    """Everything but the finish."""
    tree.prepare(DIRECTORIES, "a test")
    for file in FILES:
        put(tree, file, 0, b"content"[: file.size])


def finish(tree: TargetTree, *, sync: bool = True) -> None:
    for file in FILES:
        tree.flush(file)
    tree.finish(sync=sync)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def tree(target: Path) -> Iterator[TargetTree]:
    tree = TargetTree(target, (), None)
    yield tree
    tree.close()


def test_i6_until_the_end_the_marker_stands_and_pg_control_has_another_name(
    tree: TargetTree, target: Path
) -> None:
    fill(tree)
    assert (target / MARKER).read_text() == "a test\n"
    assert (target / HIDDEN).exists()
    assert not (target / "global/pg_control").exists()
    finish(tree)
    assert (target / "global/pg_control").read_bytes() == b"cont"
    assert {path.name for path in target.iterdir()} == {"base", "global", "pg_tblspc", "PG_VERSION"}
    assert not (target / HIDDEN).exists()


def test_r14_an_aborted_restore_is_cleared_by_the_next(tree: TargetTree, target: Path) -> None:
    fill(tree)
    (target / "base/1/left over").write_text("x")
    again = TargetTree(target, (), None)
    fill(again)
    finish(again)
    again.close()
    assert not (target / "base/1/left over").exists()
    assert (target / "base/1/1259").read_bytes() == b"conten"


def test_pieces_may_come_in_any_order_and_from_several_threads(
    tree: TargetTree, target: Path
) -> None:
    tree.prepare(DIRECTORIES, "a test")
    content, piece = os.urandom(64 * 1000), 1000
    file = PlannedFile(b"base/1/1", len(content), 0o600)
    with ThreadPoolExecutor(4) as executor:
        starts = [start * piece for start in reversed(range(64))]
        list(executor.map(lambda at: put(tree, file, at, content[at : at + piece]), starts))
    assert (target / "base/1/1").read_bytes() == content


def test_a_composed_file_has_its_length_from_the_first_piece_on_and_zeros_elsewhere(
    tree: TargetTree, target: Path
) -> None:
    tree.prepare(DIRECTORIES, "a test")
    composed = PlannedFile(b"base/1/1", 50, 0o600, composed=True)
    untouched = PlannedFile(b"base/1/2", 7, 0o600, composed=True)
    tree.write(composed, [(40, memoryview(b"b")), (10, memoryview(b"a"))])
    for file in (composed, untouched):
        tree.ensure(file)
    whole = bytes(10) + b"a" + bytes(29) + b"b" + bytes(9)
    assert (target / "base/1/1").read_bytes() == whole
    assert (target / "base/1/2").read_bytes() == bytes(7)
    with tree.reading(composed) as descriptor:
        assert os.read(descriptor, 99) == whole


def test_the_room_of_an_unfinished_restore_is_known(tree: TargetTree, target: Path) -> None:
    assert unfinished_bytes(target) == 0
    tree.prepare(DIRECTORIES, "a test")
    empty = unfinished_bytes(target)
    put(tree, FILES[0], 0, bytes(1 << 20))
    assert unfinished_bytes(target) - empty == 1 << 20
    (target / MARKER).unlink()
    assert unfinished_bytes(target) == 0


def test_the_control_file_can_be_kept_under_a_name_that_no_server_looks_for(
    tree: TargetTree, target: Path
) -> None:
    fill(tree)
    tree.finish(sync=False, control=b"global/pg_control.extracted")
    assert [path.name for path in (target / "global").iterdir()] == ["pg_control.extracted"]
    assert not (target / MARKER).exists()


def test_r05_a_directory_that_holds_anything_is_refused_and_left_alone(target: Path) -> None:
    target.mkdir()
    (target / "theirs").write_text("x")
    with pytest.raises(TargetNotEmpty, match="holds 'theirs'"):
        check_restorable_into(target)
    assert [path.name for path in target.iterdir()] == ["theirs"]


def test_r06_a_directory_with_a_server_is_refused_even_if_a_marker_stands(target: Path) -> None:
    target.mkdir()
    (target / "postmaster.pid").write_text("1")
    (target / MARKER).write_text("")
    with pytest.raises(TargetRunning):
        check_restorable_into(target)


def test_a_copy_in_which_a_server_has_run_is_never_cleared(target: Path) -> None:
    target.mkdir()
    (target / MARKER).write_text("")
    (target / "postmaster.opts").write_text("")
    with pytest.raises(TargetNotEmpty):
        check_restorable_into(target)


def test_r11_a_marker_that_is_a_link_is_neither_believed_nor_written_through(
    tree: TargetTree, target: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    target.mkdir()
    (target / MARKER).symlink_to(victim)
    with pytest.raises(TargetUnusable, match="symbolic link"):
        fill(tree)
    assert victim.read_text() == "theirs"


def test_r11_a_target_that_is_a_link_is_refused(tree: TargetTree, target: Path) -> None:
    elsewhere = target.with_name("elsewhere")
    elsewhere.mkdir()
    target.symlink_to(elsewhere)
    with pytest.raises(TargetUnusable, match="symbolic link"):
        fill(tree)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("dangling", [True, False])
def test_r11_a_file_planted_as_a_link_is_not_followed(
    tree: TargetTree, target: Path, tmp_path: Path, *, dangling: bool
) -> None:
    victim = tmp_path / "victim"
    if not dangling:
        victim.write_text("theirs")
    tree.prepare(DIRECTORIES, "a test")
    (target / "PG_VERSION").symlink_to(victim)
    with pytest.raises(TargetUnusable, match="PG_VERSION"):
        put(tree, FILES[1], 0, b"17\n")
    assert victim.exists() != dangling
    assert dangling or victim.read_text() == "theirs"


def test_r11_a_directory_replaced_by_a_link_leads_nowhere(
    tree: TargetTree, target: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    tree.prepare(DIRECTORIES, "a test")
    (target / "base").rename(target / "moved")
    (target / "base").symlink_to(elsewhere)
    put(tree, FILES[0], 0, b"secret")
    assert list(elsewhere.iterdir()) == []
    assert (target / "moved/1/1259").read_bytes() == b"secret"


def test_r11_a_file_swapped_for_a_link_between_two_pieces_is_not_followed(
    tree: TargetTree, target: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    tree.prepare(DIRECTORIES, "a test")
    put(tree, FILES[0], 0, b"con")
    (target / "base/1/1259").unlink()
    (target / "base/1/1259").symlink_to(victim)
    with pytest.raises(TargetUnusable):
        put(tree, FILES[0], 3, b"ten")
    assert victim.read_text() == "theirs"


def test_a_file_whose_directory_was_not_planned_is_refused(tree: TargetTree) -> None:
    tree.prepare(DIRECTORIES, "a test")
    with pytest.raises(TargetUnusable, match="no directory"):
        put(tree, PlannedFile(b"base/2/1", 1, 0o600), 0, b"x")


@pytest.mark.parametrize("place", ["file/data", "/proc/data"])
def test_r08_a_place_where_nothing_can_be_made_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    tree = TargetTree(tmp_path / place, (), None)
    with pytest.raises(TargetUnusable):
        tree.prepare(DIRECTORIES, "a test")


@given(st.integers(0, 0o7777))
def test_r33_modes_are_the_owner_s_and_at_most_readable_for_the_group(mode: int) -> None:
    file, directory = mode_of(mode, 0o600), mode_of(mode, 0o700)
    assert file in {0o600, 0o640}
    assert directory & 0o700 == 0o700
    assert directory & 0o027 == 0


def test_r33_a_set_uid_bit_of_the_source_does_not_arrive(tree: TargetTree, target: Path) -> None:
    tree.prepare([*DIRECTORIES, PlannedFile(b"open", 0, 0o1777)], "a test")
    put(tree, PlannedFile(b"open/file", 1, 0o4777), 0, b"x")
    tree.ensure(PlannedFile(b"open/empty", 0, 0o644))
    assert stat.S_IMODE((target / "open").stat().st_mode) == 0o750
    assert stat.S_IMODE((target / "open/file").stat().st_mode) == 0o640
    assert (target / "open/empty").stat().st_size == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_r33_everything_belongs_to_the_owner_links_left_alone(target: Path, tmp_path: Path) -> None:
    outside = TablespaceLocation("16385", "/old", str(tmp_path / "space"), in_place=False)
    tree = TargetTree(target, [outside], Owner(4711, 4712))
    fill(tree)
    finish(tree, sync=False)
    tree.close()
    for path in (target, *target.rglob("*"), tmp_path / "space"):
        if not path.is_symlink():
            assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712), path


def test_tablespaces_are_linked_marked_and_released(target: Path, tmp_path: Path) -> None:
    space = tmp_path / "space = odd"
    places = [
        TablespaceLocation("16385", "/old", str(space), in_place=False),
        TablespaceLocation("16386", "pg_tblspc/16386", "pg_tblspc/16386", in_place=True),
    ]
    tree = TargetTree(target, places, None)
    tree.prepare([*DIRECTORIES, PlannedFile(b"pg_tblspc/16385/PG_17", 0, 0o700)], "two tablespaces")
    put(tree, PlannedFile(b"pg_tblspc/16385/PG_17/1", 1, 0o600), 0, b"x")
    put(tree, PlannedFile(b"pg_tblspc/16386/1", 1, 0o600), 0, b"y")
    put(tree, CONTROL, 0, b"abcd")
    assert (space / MARKER).exists()
    tree.finish(sync=True)
    tree.close()
    assert (target / "pg_tblspc/16385").readlink() == space
    assert (space / "PG_17/1").read_bytes() == b"x"
    assert (target / "pg_tblspc/16386/1").read_bytes() == b"y"
    assert not (space / MARKER).exists()


def test_a_tablespace_that_is_not_empty_stops_the_restore_before_it_begins(
    target: Path, tmp_path: Path
) -> None:
    (tmp_path / "space").mkdir()
    (tmp_path / "space/theirs").write_text("x")
    place = TablespaceLocation("16385", "/old", str(tmp_path / "space"), in_place=False)
    with pytest.raises(TargetNotEmpty):
        TargetTree(target, [place], None).prepare(DIRECTORIES, "a test")
    assert not target.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root and the right to mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_r07_a_full_disk_is_told_and_leaves_nothing_to_start(small_disk: Path) -> None:
    tree = TargetTree(small_disk / "data", (), None)
    tree.prepare(DIRECTORIES, "a test")
    put(tree, CONTROL, 0, b"cont")
    big = PlannedFile(b"base/1/big", 2 << 20, 0o600)
    with pytest.raises(DiskFull, match="base/1/big"):
        put(tree, big, 0, bytes(2 << 20))
    tree.close()
    assert (small_disk / "data" / MARKER).exists()
    assert not (small_disk / "data/global/pg_control").exists()


def test_r07_a_file_beyond_the_limit_of_the_process_is_told(tree: TargetTree) -> None:
    """Everywhere, root or not: EFBIG is another refusal of the kernel in the middle of a write."""
    tree.prepare(DIRECTORIES, "a test")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(TargetUnusable, match="too large"):
            put(tree, FILES[0], 0, bytes(8192))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
