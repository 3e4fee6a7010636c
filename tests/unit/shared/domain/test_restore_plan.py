"""Restore plans cover every byte of every file once, or are refused with every reason."""

from collections import defaultdict
from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup_index import (
    BackupIndex,
    IndexedMember,
    IndexedVolume,
    MemberKind,
    MemberTable,
)
from shared.domain.fetch_plan import FETCH_PLAIN, FETCH_STORED
from shared.domain.not_restorable import NotRestorable
from shared.domain.restore_plan import REQUIRED, RestorePlan, plan_restore
from shared.domain.tablespace_places import TablespaceLocation, place_tablespaces

LABEL = "20261122T030000Z-F-k3x7"
HEADER = 512
BLOCK = 8192
SPACE = TablespaceLocation("16385", "/old", "/new", in_place=False)


def file(archive: str, path: bytes, size: int, offset: int) -> IndexedMember:
    return IndexedMember(archive, path, MemberKind.FILE, size, 0o600, offset)


def members_of(archive: str, files: list[tuple[bytes, int]]) -> tuple[list[IndexedMember], int]:
    """As a tar holds them: a header before each, padding behind; and the length of it all."""
    members, position = [], 0
    for path, size in files:
        members.append(file(archive, path, size, position + HEADER))
        position += HEADER + size + -size % HEADER
    return members, position


def volumes_of(archive: str, sizes: list[list[int]], stored: int = 7) -> list[IndexedVolume]:
    """One volume for each list of frame sizes; every frame is stored in `stored` bytes."""
    starts = accumulate((sum(frames) for frames in sizes), initial=0)
    return [
        IndexedVolume(
            name=f"base.{archive}.{number:04d}",
            archive=archive,
            number=number,
            start=start,
            stored_size=stored * len(frames),
            frame_stored=(stored,) * len(frames),
            frame_plain=tuple(frames),
        )
        for number, (frames, start) in enumerate(zip(sizes, starts, strict=False))
    ]


@st.composite
def indexes(draw: st.DrawFn) -> BackupIndex:
    """A data directory and perhaps a tablespace, cut into frames and volumes anywhere."""
    members: list[IndexedMember] = []
    volumes: list[IndexedVolume] = []
    for archive in ["pgdata", *(["16385"] if draw(st.booleans()) else [])]:
        sizes = draw(st.lists(st.integers(0, 3000), max_size=8))
        names = [*REQUIRED] if archive == "pgdata" else []
        files = [(name, 100) for name in names]
        files += [(b"base/%d" % number, size) for number, size in enumerate(sizes)]
        found, length = members_of(archive, files)
        members += found
        cuts = sorted(draw(st.sets(st.integers(1, max(1, length - 1)), max_size=9)))
        edges = [0, *(cut for cut in cuts if cut < length), length]
        frames = [end - begin for begin, end in pairwise(edges)]
        per_volume = draw(st.integers(1, 4))
        parts = [frames[i : i + per_volume] for i in range(0, len(frames), per_volume)]
        volumes += volumes_of(archive, parts)
    return BackupIndex(LABEL, tuple(volumes), MemberTable(members))


def rebuilt(plan: RestorePlan, index: BackupIndex) -> dict[bytes, list[tuple[int, int, str, int]]]:
    """By file: where each of its pieces begins and ends, and which archive's byte is there."""
    pieces = defaultdict(list)
    volumes = {volume.name: volume for volume in index.volumes}
    for fetch in plan.fetches:
        volume = volumes[fetch.volume]
        stored = list(accumulate(volume.frame_stored, initial=0))
        plain = list(accumulate(volume.frame_plain, initial=volume.start))
        first = stored.index(fetch.stored_offset)
        assert fetch.stored_length == stored[first + len(fetch.frames)] - fetch.stored_offset
        for frame, begin in zip(fetch.frames, plain[first:], strict=False):
            for extent in frame.extents:
                assert extent.plain_offset + extent.length <= frame.plain_length
                start = extent.file_offset
                place = (
                    start,
                    start + extent.length,
                    volume.archive,
                    begin + extent.plain_offset,
                )
                pieces[plan.files[extent.file].path].append(place)
    return pieces


@given(indexes())
def test_the_extents_cover_every_byte_of_every_file_exactly_once(index: BackupIndex) -> None:
    plan = plan_restore([index], [SPACE], block_size=BLOCK)
    pieces = rebuilt(plan, index)
    assert [item.path for item in plan.files] == [item.restored_path for item in index.members]
    for member in index.members:
        position = 0
        for begin, end, archive, source in sorted(pieces.pop(member.restored_path, [])):
            assert (begin, archive, source) == (position, member.archive, member.offset + begin)
            position = end
        assert position == member.size
    assert not pieces
    assert plan.file_bytes == sum(member.size for member in index.members)


def big_index(frame: int, stored: int, count: int) -> BackupIndex:
    size = frame * count - 3 * (HEADER + HEADER) - HEADER
    members, length = members_of(
        "pgdata", [*((name, HEADER) for name in REQUIRED), (b"base/1", size)]
    )
    assert length == frame * count
    return BackupIndex(
        LABEL, tuple(volumes_of("pgdata", [[frame] * count], stored)), MemberTable(members)
    )


@pytest.mark.parametrize(
    ("frame", "stored"), [(4 << 20, 4 << 20), (4 << 20, 1000), (64 << 20, 20 << 20)]
)
def test_a_fetch_stays_within_its_limits_unless_one_frame_is_larger(
    frame: int, stored: int
) -> None:
    plan = plan_restore([big_index(frame, stored, 12)], [], block_size=BLOCK)
    for fetch in plan.fetches:
        plain = sum(item.plain_length for item in fetch.frames)
        within = fetch.stored_length <= FETCH_STORED and plain <= FETCH_PLAIN
        assert within or len(fetch.frames) == 1
    assert plan.fetched_bytes == stored * 12


def sound() -> BackupIndex:
    members, length = members_of("pgdata", [(name, 100) for name in REQUIRED])
    return BackupIndex(
        LABEL,
        tuple(volumes_of("pgdata", [[length // 2], [length // 2]])),
        MemberTable(members),
    )


def test_frames_in_which_no_file_lies_are_not_fetched() -> None:
    index = sound()
    last = index.volumes[-1]
    padding = replace(last, number=2, name="base.pgdata.0002", start=last.start + last.plain_size)
    plan = plan_restore([replace(index, volumes=(*index.volumes, padding))], [], block_size=BLOCK)
    assert {fetch.volume for fetch in plan.fetches} == {"base.pgdata.0000", "base.pgdata.0001"}


def test_r13_a_backup_without_its_label_is_refused_with_everything_else_that_is_wrong() -> None:
    index = sound()
    members = [member for member in index.members if member.path != b"backup_label"]
    broken = BackupIndex(
        LABEL,
        (replace(index.volumes[1], number=1), *volumes_of("99", [[10]])),
        MemberTable([*members, members[0]]),
    )
    with pytest.raises(NotRestorable) as refused:
        plan_restore([broken], [], block_size=BLOCK)
    for reason in (
        "it holds no backup_label",
        "tablespace 99 has no location",
        "two members have one path",
        "volumes before base.pgdata.0001 are missing",
        "overlaps what comes before it",
    ):
        assert reason in refused.value.fact


@pytest.mark.parametrize("path", REQUIRED)
def test_each_file_without_which_a_copy_is_silently_wrong_is_required(path: bytes) -> None:
    index = sound()
    members = MemberTable(member for member in index.members if member.path != path)
    with pytest.raises(NotRestorable, match=f"it holds no {path.decode()}"):
        plan_restore([replace(index, members=members)], [], block_size=BLOCK)


def test_r01_a_volume_missing_at_the_end_or_given_twice_is_noticed() -> None:
    index = sound()
    with pytest.raises(NotRestorable, match="lies outside the volumes"):
        plan_restore([replace(index, volumes=index.volumes[:1])], [], block_size=BLOCK)
    with pytest.raises(NotRestorable, match=r"volumes before base\.pgdata\.0001 are missing"):
        plan_restore(
            [replace(index, volumes=(*index.volumes, index.volumes[1]))], [], block_size=BLOCK
        )


ORIGINALS = {"16385": "/old/fast", "16386": "/old/slow", "16387": "pg_tblspc/16387"}


def test_tablespaces_go_where_the_mapping_says_or_back_to_where_they_were() -> None:
    places = place_tablespaces(ORIGINALS, {"/old/fast": "/new=odd/fast"}, "/data")
    assert [(place.oid, place.location, place.in_place) for place in places] == [
        ("16385", "/new=odd/fast", False),
        ("16386", "/old/slow", False),
        ("16387", "pg_tblspc/16387", True),
    ]


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        ({"/old/fast": "relative"}, "relative is not absolute"),
        ({"/old/fast": ""}, "is not absolute"),
        ({"/other": "/new"}, "unknown tablespace /other"),
        ({"/old/fast": "/old/slow"}, "/old/slow and /old/slow overlap"),
        ({"/old/fast": "/old/slow/inside"}, "/old/slow/inside and /old/slow overlap"),
        ({"/old/fast": "/data"}, "/data and /data overlap"),
        ({"/old/fast": "/data/pg_tblspc/x"}, "/data and /data/pg_tblspc/x overlap"),
        ({"/old/fast": "/"}, "/data and / overlap"),
    ],
)
def test_r10_a_mapping_that_cannot_work_is_refused(mapping: dict[str, str], reason: str) -> None:
    with pytest.raises(NotRestorable) as refused:
        place_tablespaces(ORIGINALS, mapping, "/data")
    assert reason in refused.value.fact
    assert "OLD=NEW" in refused.value.advice


def test_r10_a_path_that_only_looks_like_another_does_not_overlap() -> None:
    assert place_tablespaces({"1": "/data2"}, {}, "/data")[0].location == "/data2"


def test_r10_a_mapping_through_dot_dot_cannot_hide_an_overlap() -> None:
    with pytest.raises(NotRestorable, match="overlap"):
        place_tablespaces({"1": "/old"}, {"/old": "/x/../data/inside"}, "/data")
