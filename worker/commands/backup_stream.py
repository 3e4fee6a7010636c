"""From BASE_BACKUP's events to sealed volumes and their index: one pass, nothing kept on disk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from shared.domain.backup_index import IndexedMember, IndexedVolume, MemberKind, is_incremental
from shared.domain.wal_segment import segments_between
from shared.errors import Corrupt, Refused, Unavailable
from shared.repository import layout
from shared.repository.documents import Volume
from shared.repository.layout import VolumeName
from worker.pipeline.member_heads import HeadFeeder, Whole
from worker.pipeline.sealed_upload import SealedUpload, StoredBlob
from worker.pipeline.tar_index import member_line, volume_line
from worker.pipeline.tar_walk import TarMember, TarWalker
from worker.postgres.backup_label import BACKUP_LABEL, SIZE_LIMIT
from worker.postgres.backup_manifest import BackupManifest
from worker.postgres.base_backup import (
    Archive,
    ChecksumFailures,
    Data,
    Event,
    ManifestData,
    Progress,
    Start,
    Stop,
    Tablespace,
    Tablespaces,
)
from worker.postgres.incremental_file import HeaderReader

OpenUpload = Callable[[str], SealedUpload]
"""Begins the sealed blob of this name within the backup."""
OpenArchive = Callable[[str, dict[bytes, int]], "ArchiveWriter"]
"""Begins an archive; the sizes of its files go into the dictionary."""
Report = Callable[[int, int], None]
"""Called with the bytes streamed so far and the server's estimate of all."""


class StreamIncomplete(Corrupt):
    """PostgreSQL's stream and its own manifest do not agree; nothing was committed."""

    code = "backup-stream-incomplete"
    hint = "Run the backup again; if it stays, look at the server's log and its file system."


class SystemChanged(Unavailable):
    """The server is on another timeline at the backup's end than at its start: a failover."""

    code = "system-changed"
    hint = "Nothing was committed. Run the backup again when the failover is over."


class PartInFullBackup(Corrupt):
    """A file that is named like a part of one, where PostgreSQL sends only whole ones.

    pg_combinebackup refuses it, too (009_no_full_file): nobody could tell it from a real part.
    """

    code = "part-in-full-backup"
    hint = "A file called INCREMENTAL.* lies among the relations; PostgreSQL never makes one."


class TablespacePathRefused(Refused):
    """A tablespace whose path is not UTF-8: the document, which is JSON, could not hold it."""

    code = "tablespace-path-refused"
    hint = "Move the tablespace to a directory whose name is UTF-8, with ALTER … SET TABLESPACE."


@dataclass(slots=True)
class StoredStream:
    """What one BASE_BACKUP left behind: committed volumes, the index still open."""

    start: Start
    stop: Stop
    tablespaces: tuple[Tablespace, ...]
    volumes: list[Volume]
    manifest: bytes
    file_sizes: dict[bytes, int]
    backup_label: bytes = b""
    # Of all files as they will be restored; parts of files count as the whole.
    whole_bytes: int = 0
    page_checksum_failures: int = 0
    # What the server said of them: files and blocks by number, no names of tables.
    page_checksum_warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class ArchiveWriter:
    """One tar archive into numbered volumes of at most `volume_bytes` of plaintext."""

    archive: str
    open_upload: OpenUpload
    index: SealedUpload
    volume_bytes: int
    # Filled for who compares them with a manifest; None: nobody does.
    file_sizes: dict[bytes, int] | None
    # Of the server, when the backup is an incremental one; None: nothing may come in part.
    block_size: int | None = None
    volumes: list[Volume] = field(default_factory=list)
    backup_label: Whole | None = None
    # Bytes of files that came in part, without those parts.
    left_out: int = 0
    _walker: TarWalker = field(default_factory=TarWalker)
    _heads: HeadFeeder = field(default_factory=HeadFeeder)
    # A member whose line waits for what its header says.
    _part: IndexedMember | None = None
    _upload: SealedUpload | None = None
    _fed: int = 0
    _start: int = 0

    def write(self, chunk: bytes) -> None:
        for member in self._walker.feed(chunk):
            self._read_head(chunk)
            self._record(member)
        self._read_head(chunk)
        self._fed += len(chunk)
        rest = memoryview(chunk)
        while rest:
            upload = self._current()
            room = self.volume_bytes - upload.plain_size
            upload.write(rest[:room])
            rest = rest[room:]
            if upload.plain_size == self.volume_bytes:
                self._close_volume()

    def finish(self) -> None:
        """Commit the last volume. Raises TarMalformed when the archive stops inside a member."""
        self._walker.finish()
        if self._upload is not None or not self.volumes:
            self._current()
            self._close_volume()

    def abandon(self) -> None:
        if self._upload is not None:
            self._upload.abandon()

    def _current(self) -> SealedUpload:
        if self._upload is None:
            self._upload = self.open_upload(str(self._volume_name()))
        return self._upload

    def _volume_name(self) -> VolumeName:
        return VolumeName(self.archive, len(self.volumes))

    def _close_volume(self) -> None:
        if self._upload is None:
            return
        name, stored = self._volume_name(), self._upload.commit()
        self.index.write(volume_line(_indexed_volume(name, self._start, stored)))
        self.volumes.append(_volume(name, stored))
        self._start += stored.plain_size
        self._upload = None

    def _record(self, member: TarMember) -> None:
        indexed = IndexedMember(
            archive=self.archive,
            path=member.path,
            kind=member.kind,
            size=member.size,
            mode=member.mode,
            offset=member.data_offset,
            target=member.link_target,
        )
        if member.kind is MemberKind.FILE and self.file_sizes is not None:
            self.file_sizes[indexed.restored_path] = member.size
        if member.kind is MemberKind.FILE and is_incremental(indexed.restored_path):
            self._part = indexed
            self._heads.begin(self._header_of(indexed), indexed.offset)
            return
        if indexed.restored_path == BACKUP_LABEL and member.size <= SIZE_LIMIT:
            self.backup_label = Whole(member.size)
            self._heads.begin(self.backup_label, indexed.offset)
        self.index.write(member_line(indexed))

    def _header_of(self, member: IndexedMember) -> HeaderReader:
        if self.block_size is None:
            raise PartInFullBackup(f"{member.restored_path!r} is in a full backup")
        return HeaderReader(member.restored_path, member.size, self.block_size)

    def _read_head(self, chunk: bytes) -> None:
        head = self._heads.feed(chunk, self._fed)
        if isinstance(head, HeaderReader) and self._part is not None:
            held = head.result()
            self.index.write(member_line(replace(self._part, incremental=held)))
            self.left_out += held.length * head.block_size - self._part.size
            self._part = None


def store_stream(
    events: Iterator[Event],
    open_upload: OpenUpload,
    index: SealedUpload,
    volume_bytes: int,
    report: Report,
    *,
    block_size: int | None = None,
) -> StoredStream:
    """Consume the events to the end. Raises what the server, the pipeline or the store raises.

    `block_size` is the server's when it was asked for an incremental backup, else None.

    Volumes are committed as they fill; without a backup document they are litter. The caller
    commits or abandons `index`.
    """

    def open_archive(archive: str, file_sizes: dict[bytes, int]) -> ArchiveWriter:
        return ArchiveWriter(archive, open_upload, index, volume_bytes, file_sizes, block_size)

    reader = _StreamReader(open_archive, report)
    try:
        for event in events:
            reader.take(event)
        return reader.result()
    except BaseException:
        reader.abandon()
        raise


def check_manifest(manifest: BackupManifest, stream: StoredStream, system_identifier: str) -> None:
    """Every file of PostgreSQL's manifest came, with its size, and nothing else but WAL.

    Raises StreamIncomplete.
    """
    if manifest.system_identifier not in {None, int(system_identifier)}:
        raise StreamIncomplete(f"the manifest is that of system {manifest.system_identifier}")
    for path, entry in manifest.files.items():
        size = stream.file_sizes.get(path)
        if size != entry.size:
            raise StreamIncomplete(
                f"{path!r} came with {size} bytes, the manifest says {entry.size}"
            )
    for path in stream.file_sizes:
        if path not in manifest.files and not path.startswith(b"pg_wal/"):
            raise StreamIncomplete(f"{path!r} came but is not in the manifest")


def check_wal(manifest: BackupManifest, stream: StoredStream, segment_size: int) -> None:
    """The backup carries all of the WAL that makes it consistent: it restores without an archive.

    PostgreSQL's manifest says the range and lists no segment of it. Raises StreamIncomplete.
    """
    start, stop = stream.start, stream.stop
    told = [(item.timeline, item.start, item.end) for item in manifest.wal_ranges]
    if told != [(start.timeline, start.lsn, stop.lsn)]:
        ranges = ", ".join(f"{begin} to {end}" for _, begin, end in told) or "no WAL"
        raise StreamIncomplete(f"the manifest is of {ranges}, not of {start.lsn} to {stop.lsn}")
    for name in segments_between(start.timeline, start.lsn, stop.lsn, segment_size):
        size = stream.file_sizes.get(b"pg_wal/" + name.encode())
        if size != segment_size:
            raise StreamIncomplete(f"WAL segment {name} came with {size} bytes")


class _StreamReader:
    """Where the stream stands. Events come in the order that base_backup promises."""

    def __init__(self, open_archive: OpenArchive, report: Report) -> None:
        self._open_archive = open_archive
        self._report = report
        self._start: Start | None = None
        self._stop: Stop | None = None
        self._tablespaces: tuple[Tablespace, ...] = ()
        self._writer: ArchiveWriter | None = None
        self._volumes: list[Volume] = []
        self._file_sizes: dict[bytes, int] = {}
        self._manifest = bytearray()
        self._backup_label = b""
        self._left_out = 0
        self._failures = ChecksumFailures(0, ())
        self._done = 0

    def take(self, event: Event) -> None:
        match event:
            case Data(chunk=chunk):
                self._data(chunk)
            case Progress():
                self._report(self._done, self._total())
            case ManifestData(chunk=chunk):
                self._manifest += chunk
            case Archive(tablespace=tablespace):
                self._finish_archive()
                self._begin_archive(tablespace)
            case Start():
                self._start = event
            case Tablespaces(tablespaces=tablespaces):
                self._tablespaces = tuple(map(_with_utf8_path, tablespaces))
            case ChecksumFailures():
                self._failures = event
            case Stop():
                self._stop = event

    def result(self) -> StoredStream:
        self._finish_archive()
        if self._start is None or self._stop is None:
            raise StreamIncomplete("the stream ended before its stop position")
        if self._start.timeline != self._stop.timeline:
            raise SystemChanged(
                f"the server went from timeline {self._start.timeline} to {self._stop.timeline}"
            )
        self._report(self._done, self._done)
        return StoredStream(
            start=self._start,
            stop=self._stop,
            tablespaces=self._tablespaces,
            volumes=self._volumes,
            manifest=bytes(self._manifest),
            file_sizes=self._file_sizes,
            backup_label=self._backup_label,
            whole_bytes=sum(self._file_sizes.values()) + self._left_out,
            page_checksum_failures=self._failures.count,
            page_checksum_warnings=self._failures.messages,
        )

    def abandon(self) -> None:
        if self._writer is not None:
            self._writer.abandon()

    def _data(self, chunk: bytes) -> None:
        if self._writer is None:
            raise StreamIncomplete("data came before an archive")
        self._writer.write(chunk)
        self._done += len(chunk)

    def _begin_archive(self, tablespace: Tablespace) -> None:
        archive = layout.PGDATA_ARCHIVE if tablespace.oid is None else str(tablespace.oid)
        self._writer = self._open_archive(archive, self._file_sizes)

    def _finish_archive(self) -> None:
        if self._writer is not None:
            self._writer.finish()
            self._volumes += self._writer.volumes
            self._left_out += self._writer.left_out
            if self._writer.backup_label is not None:
                self._backup_label = bytes(self._writer.backup_label.content)
            self._writer = None

    def _total(self) -> int:
        return max(self._done, sum(item.size_estimate or 0 for item in self._tablespaces))


def _with_utf8_path(tablespace: Tablespace) -> Tablespace:
    try:
        tablespace.path.decode("utf-8")
    except UnicodeDecodeError:
        fact = f"the path of tablespace {tablespace.oid} is not UTF-8: {tablespace.path!r}"
        raise TablespacePathRefused(fact) from None
    return tablespace


def _volume(name: VolumeName, stored: StoredBlob) -> Volume:
    return Volume(
        name=str(name),
        archive=name.archive,
        number=name.number,
        stored_size=stored.stored_size,
        sha256=stored.sha256,
        plain_size=stored.plain_size,
        plain_sha256=stored.plain_sha256,
        frames=len(stored.frames),
    )


def _indexed_volume(name: VolumeName, start: int, stored: StoredBlob) -> IndexedVolume:
    sizes = stored.frames.sizes()
    return IndexedVolume(
        name=str(name),
        archive=name.archive,
        number=name.number,
        start=start,
        stored_size=stored.stored_size,
        frame_stored=tuple(compressed for compressed, _ in sizes),
        frame_plain=tuple(plain for _, plain in sizes),
    )
