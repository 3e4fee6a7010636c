"""Planning a restore: pure, complete and with its reasons, before a byte is written.

A plan turns a backup's index into fetches: runs of zstd frames of one volume, each frame with the
extents of files that it fills. Fetches are independent: any order, any parallelism.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from posixpath import normpath

from shared.domain.backup_index import BackupIndex, IndexedMember, IndexedVolume, MemberKind
from shared.errors import Refused

# A fetch is one ranged GET of whole segments: big enough that the segments at both ends, of which a
# part is not wanted, hardly count; small enough to keep several in memory.
FETCH_STORED = 8 << 20
FETCH_PLAIN = 32 << 20

# Without these a copied directory starts and is silently wrong (PostgreSQL's 042_low_level_backup).
REQUIRED = (b"backup_label", b"global/pg_control", b"PG_VERSION")
PG_CONTROL = b"global/pg_control"


class NotRestorable(Refused):
    """The plan cannot be made; the fact lists every reason."""

    code = "not-restorable"
    hint = "Choose another backup with `pgkeep list`; this one cannot become a running cluster."


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """`path` is relative to the data directory."""

    path: bytes
    size: int
    mode: int


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes at `plain_offset` of a frame's plaintext go to `file_offset` of a file.

    `file` is an index into the plan's `files`.
    """

    file: int
    file_offset: int
    plain_offset: int
    length: int


@dataclass(frozen=True, slots=True)
class PlannedFrame:
    """One zstd frame with what its plaintext fills."""

    stored_length: int
    plain_length: int
    extents: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Consecutive frames of one volume. `stored_offset` counts in the volume's zstd stream."""

    volume: str
    stored_offset: int
    stored_length: int
    frames: tuple[PlannedFrame, ...]


@dataclass(frozen=True, slots=True)
class TablespaceLocation:
    """Where tablespace `oid` goes; `in_place` ones are plain directories below pg_tblspc."""

    oid: str
    original: str
    location: str
    in_place: bool


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What to do and why. Directories come parents first; `files` is what extents refer to."""

    label: str
    directories: tuple[PlannedFile, ...]
    files: tuple[PlannedFile, ...]
    tablespaces: tuple[TablespaceLocation, ...]
    fetches: tuple[Fetch, ...]
    reasons: tuple[str, ...]

    @property
    def file_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def fetched_bytes(self) -> int:
        return sum(fetch.stored_length for fetch in self.fetches)

    def estimated_seconds(self, bytes_per_second: float) -> float:
        return self.file_bytes / bytes_per_second


def plan_restore(
    index: BackupIndex, tablespaces: Sequence[TablespaceLocation], reasons: Sequence[str] = ()
) -> RestorePlan:
    """Raises NotRestorable with every reason at once."""
    problems = list(_problems(index, tablespaces))
    if problems:
        raise NotRestorable(f"backup {index.label} cannot be restored: " + "; ".join(problems))
    directories = [_planned(m) for m in index.members if m.kind is MemberKind.DIRECTORY]
    members = [m for m in index.members if m.kind is MemberKind.FILE]
    return RestorePlan(
        label=index.label,
        directories=tuple(sorted(directories, key=lambda item: item.path)),
        files=tuple(_planned(member) for member in members),
        tablespaces=tuple(tablespaces),
        fetches=tuple(_fetches(index.volumes, members)),
        reasons=tuple(reasons),
    )


def place_tablespaces(
    originals: Mapping[str, str], mapping: Mapping[str, str], data_directory: str
) -> list[TablespaceLocation]:
    """Where each tablespace goes: `originals` maps OID to source path, `mapping` old path to new.

    A path that starts with pg_tblspc/ is an in-place tablespace and stays inside. Raises
    NotRestorable for a mapping that is relative, unknown, shared by two, or overlaps.
    """
    problems = [
        f"mapping of unknown tablespace {old}" for old in mapping.keys() - set(originals.values())
    ]
    places = []
    for oid, original in sorted(originals.items()):
        in_place = original.startswith("pg_tblspc/")
        places.append(TablespaceLocation(oid, original, mapping.get(original, original), in_place))
    outside = [place for place in places if not place.in_place]
    problems += [
        f"tablespace path {p.location} is not absolute" for p in outside if p.location[:1] != "/"
    ]
    taken = [data_directory, *(place.location for place in outside)]
    problems += [
        f"{first} and {second} overlap"
        for number, first in enumerate(taken)
        for second in taken[number + 1 :]
        if _overlap(first, second)
    ]
    if problems:
        raise NotRestorable("; ".join(problems), hint="Correct --tablespace-mapping OLD=NEW.")
    return places


def _overlap(first: str, second: str) -> bool:
    one, two = _spelled_out(first), _spelled_out(second)
    return one.startswith(two) or two.startswith(one)


def _spelled_out(path: str) -> str:
    """Without `..`, `.` and doubled slashes, behind which two paths could look apart."""
    return "/" + "".join(f"{part}/" for part in normpath(path).split("/") if part)


def _problems(index: BackupIndex, tablespaces: Sequence[TablespaceLocation]) -> Iterator[str]:
    for path in REQUIRED:
        if path not in index.by_path:
            yield f"it holds no {path.decode()}"
    placed = {place.oid for place in tablespaces} | {"pgdata"}
    for archive in sorted({volume.archive for volume in index.volumes} - placed):
        yield f"tablespace {archive} has no location"
    if len(index.by_path) != len(index.members):
        yield "two members have one path"
    yield from _gaps(index)


def _gaps(index: BackupIndex) -> Iterator[str]:
    ends: dict[str, int] = {}
    for volume in sorted(index.volumes, key=lambda item: (item.archive, item.number)):
        if volume.start != ends.get(volume.archive, 0):
            yield f"volumes before {volume.name} are missing"
        ends[volume.archive] = volume.start + volume.plain_size
    behind: dict[str, int] = {}
    for member in index.members:
        if member.offset < behind.get(member.archive, 0):
            yield f"{member.restored_path!r} overlaps what comes before it"
        behind[member.archive] = member.offset + member.size
        if member.offset + member.size > ends.get(member.archive, 0):
            yield f"{member.restored_path!r} lies outside the volumes"


def _planned(member: IndexedMember) -> PlannedFile:
    return PlannedFile(member.restored_path, member.size, member.mode)


def _fetches(volumes: Sequence[IndexedVolume], members: Sequence[IndexedMember]) -> Iterator[Fetch]:
    by_archive: dict[str, list[tuple[int, IndexedMember]]] = {}
    for number, member in enumerate(members):
        if member.size:
            by_archive.setdefault(member.archive, []).append((number, member))
    for volume in volumes:
        placed = by_archive.get(volume.archive, [])
        starts = [member.offset for _, member in placed]
        plain_at = list(accumulate(volume.frame_plain, initial=volume.start))
        stored_at = list(accumulate(volume.frame_stored, initial=0))
        frames = [
            PlannedFrame(stored, plain, tuple(_extents(begin, begin + plain, placed, starts)))
            for stored, plain, begin in zip(
                volume.frame_stored, volume.frame_plain, plain_at, strict=False
            )
        ]
        for first, last in _runs(volume):
            run = tuple(frames[first:last])
            if any(frame.extents for frame in run):
                length = stored_at[last] - stored_at[first]
                yield Fetch(volume.name, stored_at[first], length, run)


def _runs(volume: IndexedVolume) -> Iterator[tuple[int, int]]:
    """Consecutive frames [first, last) within the limits of one fetch."""
    first = stored = plain = 0
    for number, (more_stored, more_plain) in enumerate(
        zip(volume.frame_stored, volume.frame_plain, strict=True)
    ):
        full = stored + more_stored > FETCH_STORED or plain + more_plain > FETCH_PLAIN
        if full and number > first:
            yield first, number
            first, stored, plain = number, 0, 0
        stored += more_stored
        plain += more_plain
    if first < len(volume.frame_stored):
        yield first, len(volume.frame_stored)


def _extents(
    begin: int,
    end: int,
    placed: Sequence[tuple[int, IndexedMember]],
    starts: Sequence[int],
) -> Iterator[Extent]:
    """What of which file lies in the archive's bytes [begin, end)."""
    first = max(0, bisect_right(starts, begin) - 1)
    for number, member in islice(placed, first, None):
        if member.offset >= end:
            break
        low, high = max(begin, member.offset), min(end, member.offset + member.size)
        if low < high:
            yield Extent(number, low - member.offset, low - begin, high - low)
