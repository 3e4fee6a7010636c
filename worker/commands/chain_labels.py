"""The backup_label of every link of a chain, held against the documents before a byte is written.

Documents say which backup builds on which; PostgreSQL says so, too, in the file it wrote. Only
where both agree do the blocks of one backup fit under those of the next.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

from shared.domain.backup_index import BackupIndex, IndexedMember
from shared.domain.not_restorable import NotRestorable
from shared.errors import ChainBroken, Corrupt
from shared.repository.documents import BackupDocument
from worker.commands.fetched_files import VolumeOpener, damaged
from worker.commands.opened_chain import OpenedChain
from worker.pipeline.seekable_zstd import decompress_frame
from worker.postgres.backup_label import (
    BACKUP_LABEL,
    SIZE_LIMIT,
    BackupLabelFileInvalid,
    BackupStart,
    parse_backup_label,
    without_parent,
)


def checked_label(
    chain: OpenedChain,
    indexes: Sequence[BackupIndex],
    volumes: VolumeOpener,
    executor: Executor,
) -> bytes:
    """What the restored cluster's backup_label says: the newest link's, without its parent.

    Raises ChainBroken when a link builds on another backup than the one before it; NotRestorable
    when one has no backup_label, BackupLabelFileInvalid when it is none.
    """
    raws = [*executor.map(lambda index: _read(volumes, index), indexes)]
    parent: BackupDocument | None = None
    for link, raw in zip(chain.links, raws, strict=True):
        _check(raw, link.stored.document, parent)
        parent = link.stored.document
    return without_parent(raws[-1])


def _check(raw: bytes, document: BackupDocument, parent: BackupDocument | None) -> None:
    found = parse_backup_label(raw)
    own = _start(document)
    if found.start != own:
        raise ChainBroken(
            f"backup {document.label} starts at {own}, its backup_label at {found.start}"
        )
    expected = None if parent is None else _start(parent)
    if found.parent != expected:
        raise ChainBroken(
            f"backup {document.label} builds on {_named(expected)}, "
            f"by its backup_label on {_named(found.parent)}"
        )


def _start(document: BackupDocument) -> BackupStart:
    return BackupStart(document.start_lsn, document.timeline)


def _named(start: BackupStart | None) -> str:
    return "no other" if start is None else f"the one from {start}"


def _read(volumes: VolumeOpener, index: BackupIndex) -> bytes:
    member = index.member(BACKUP_LABEL)
    if member is None:
        raise NotRestorable(f"backup {index.label} cannot be restored: it holds no backup_label")
    try:
        if member.size > SIZE_LIMIT:
            raise BackupLabelFileInvalid(f"backup_label has {member.size} bytes")
        return b"".join(_content(volumes, index, member))
    except Corrupt as error:
        raise damaged(error, index.label, "its backup_label lies") from None


def _content(volumes: VolumeOpener, index: BackupIndex, member: IndexedMember) -> Iterator[bytes]:
    """The frames that hold the member, cut to it."""
    last = member.offset + member.size
    own = (volume for volume in index.volumes if volume.archive == member.archive)
    for volume in sorted(own, key=lambda item: item.number):
        offset, begin = 0, volume.start
        for stored, plain in zip(volume.frame_stored, volume.frame_plain, strict=True):
            low, high = max(begin, member.offset), min(begin + plain, last)
            if low < high:
                data = volumes(index.label, volume.name).compressed(offset, stored)
                yield decompress_frame(data, plain)[low - begin : high - begin]
            offset, begin = offset + stored, begin + plain
