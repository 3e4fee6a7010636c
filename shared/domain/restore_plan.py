"""Planning a restore: pure, complete and with its reasons, before a byte is written.

A plan turns the indexes of a chain into fetches: runs of zstd frames of one volume, each frame with
the extents of files that it fills. Extents never overlap, so fetches are independent: any order,
any parallelism. They are made one by one as they are asked for, so that a plan stays small.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from shared.domain.backup_index import BackupIndex, MemberKind, MemberTable, incremental_data_offset
from shared.domain.fetch_plan import Fetches
from shared.domain.file_versions import ChainFiles, PlannedFile
from shared.domain.not_restorable import NotRestorable
from shared.domain.tablespace_places import TablespaceLocation

# Without these a copied directory starts and is silently wrong (PostgreSQL's 042_low_level_backup).
REQUIRED = (b"backup_label", b"global/pg_control", b"PG_VERSION")
PG_CONTROL = b"global/pg_control"


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What to do and why. Directories come parents first; `files` is what extents refer to.

    `chain` are the labels of the backups that are read, the full first; the last is `label`.
    """

    label: str
    chain: tuple[str, ...]
    directories: tuple[PlannedFile, ...]
    content: ChainFiles
    tablespaces: tuple[TablespaceLocation, ...]
    fetches: Fetches
    reasons: tuple[str, ...]

    @property
    def files(self) -> Sequence[PlannedFile]:
        return self.content.files

    @property
    def file_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def fetched_bytes(self) -> int:
        """Stored bytes that will be asked for; counting them plans every fetch once."""
        return sum(fetch.stored_length for fetch in self.fetches)

    def estimated_seconds(self, bytes_per_second: float) -> float:
        return self.file_bytes / bytes_per_second


def plan_restore(
    chain: Sequence[BackupIndex],
    tablespaces: Sequence[TablespaceLocation],
    *,
    block_size: int,
    reasons: Sequence[str] = (),
    without: Collection[bytes] = (),
) -> RestorePlan:
    """A whole data directory from a chain, oldest link first; files in `without` are the caller's.

    Raises NotRestorable with every reason at once.
    """
    newest = chain[-1]
    lacking = [f"it holds no {path.decode()}" for path in REQUIRED if not newest.member(path)]
    return _planned(
        chain,
        tablespaces,
        block_size=block_size,
        reasons=reasons,
        only=lambda path: path not in without,
        problems=lacking,
    )


def plan_files(
    chain: Sequence[BackupIndex], *, block_size: int, only: Callable[[bytes], bool]
) -> RestorePlan:
    """Single files, by their paths in the data directory; what they are worth is the caller's.

    Tablespaces count as directories below pg_tblspc. Raises NotRestorable.
    """
    archives = sorted({volume.archive for volume in chain[-1].volumes} - {"pgdata"})
    inside = [TablespaceLocation(oid, f"pg_tblspc/{oid}", "", in_place=True) for oid in archives]
    return _planned(chain, inside, block_size=block_size, reasons=(), only=only, problems=[])


def _planned(
    chain: Sequence[BackupIndex],
    tablespaces: Sequence[TablespaceLocation],
    *,
    block_size: int,
    reasons: Sequence[str],
    only: Callable[[bytes], bool],
    problems: list[str],
) -> RestorePlan:
    newest = chain[-1]
    problems += _unplaced(newest, tablespaces)
    for index in chain:
        problems += [f"backup {index.label}: {fault}" for fault in _unsound(index, block_size)]
    content = ChainFiles(chain, block_size, only)
    problems += content.problems
    if problems:
        raise NotRestorable(f"backup {newest.label} cannot be restored: " + "; ".join(problems))
    return RestorePlan(
        label=newest.label,
        chain=tuple(index.label for index in chain),
        directories=_directories(newest),
        content=content,
        tablespaces=tuple(tablespaces),
        fetches=Fetches(content),
        reasons=tuple(reasons),
    )


def _directories(index: BackupIndex) -> tuple[PlannedFile, ...]:
    found = (member for member in index.members if member.kind is MemberKind.DIRECTORY)
    planned = (PlannedFile(member.restored_path, member.size, member.mode) for member in found)
    return tuple(sorted(planned, key=lambda item: item.path))


def _unplaced(index: BackupIndex, tablespaces: Sequence[TablespaceLocation]) -> Iterator[str]:
    placed = {place.oid for place in tablespaces} | {"pgdata"}
    for archive in sorted({volume.archive for volume in index.volumes} - placed):
        yield f"tablespace {archive} has no location"


def _unsound(index: BackupIndex, block_size: int) -> Iterator[str]:
    """What is wrong with one link's index by itself."""
    members = index.members
    if len({members.restored_path(number) for number in range(len(members))}) != len(members):
        yield "two members have one path"
    ends: dict[str, int] = {}
    for volume in sorted(index.volumes, key=lambda item: (item.archive, item.number)):
        if volume.start != ends.get(volume.archive, 0):
            yield f"volumes before {volume.name} are missing"
        ends[volume.archive] = volume.start + volume.plain_size
    behind: dict[str, int] = {}
    for number in range(len(members)):
        archive, begin = members.archive(number), members.offset(number)
        end = begin + members.size(number)
        if begin < behind.get(archive, 0):
            yield f"{members.restored_path(number)!r} overlaps what comes before it"
        if end > ends.get(archive, 0):
            yield f"{members.restored_path(number)!r} lies outside the volumes"
        if members.is_part(number) and not _fits(members, number, block_size):
            yield f"{members.restored_path(number)!r} holds other blocks than its size allows"
        behind[archive] = end


def _fits(members: MemberTable, number: int, block_size: int) -> bool:
    count = members.block_count(number)
    whole = incremental_data_offset(count, block_size) + count * block_size
    return members.size(number) == whole
