"""What of BASE_BACKUP's events may become a backup: nothing that is not whole."""

import io
import struct
import tarfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from shared.domain.backup_index import IncrementalBlocks
from shared.domain.lsn import Lsn
from shared.errors import PostgresGone
from shared.repository.blob_store import BlobName
from worker.commands.backup_stream import (
    PartInFullBackup,
    StoredStream,
    StreamIncomplete,
    SystemChanged,
    TablespacePathRefused,
    check_manifest,
    check_wal,
    store_stream,
)
from worker.pipeline.sealed_upload import StoredBlob
from worker.pipeline.seekable_zstd import FrameTable
from worker.pipeline.tar_index import head_line, read_index
from worker.postgres.backup_manifest import BackupManifest, ManifestFile, WalRange
from worker.postgres.base_backup import (
    Archive,
    Data,
    Event,
    ManifestData,
    Start,
    Stop,
    Tablespace,
    Tablespaces,
)
from worker.postgres.manifest_files import ManifestFiles

START, STOP = Start(Lsn(0x2000028), 1), Stop(Lsn(0x2000120), 1)
WAL = WalRange(1, START.lsn, STOP.lsn)
SEGMENT = 16 << 20
PGDATA = Tablespace(None, b"", 1024)


@dataclass
class Discarded:
    """Stands for an upload of which nothing is asked."""

    plain_size: int = 0
    abandoned: list[str] = field(default_factory=list)

    def write(self, chunk: bytes) -> None:
        self.plain_size += len(chunk)

    def abandon(self) -> None:
        self.abandoned.append("yes")


def stored(events: Iterable[Event], upload: Discarded | None = None) -> StoredStream:
    opened = upload or Discarded()
    return store_stream(
        iter(events),
        lambda _name: opened,  # type: ignore[arg-type,return-value]
        Discarded(),  # type: ignore[arg-type]
        1 << 30,
        lambda _done, _total: None,
    )


def test_a_stream_without_archives_keeps_its_positions_and_its_manifest() -> None:
    events: list[Event] = [
        START,
        Tablespaces((PGDATA,)),
        ManifestData(b"{"),
        ManifestData(b"}"),
        STOP,
    ]
    found = stored(events)
    assert (found.start, found.stop, found.manifest) == (START, STOP, b"{}")


@pytest.mark.parametrize(
    ("events", "fact"),
    [
        ([], "ended before its stop position"),
        ([START], "ended before its stop position"),
        ([START, Data(b"x")], "data came before an archive"),
    ],
)
def test_a_stream_that_is_not_whole_is_refused(events: list[Event], fact: str) -> None:
    with pytest.raises(StreamIncomplete, match=fact):
        stored(events)


def test_a_failover_between_start_and_stop_ends_the_backup_and_it_may_be_tried_again() -> None:
    with pytest.raises(SystemChanged, match="from timeline 1 to 2") as failed:
        stored([START, Stop(STOP.lsn, 2)])
    assert failed.value.retryable


def test_what_was_uploaded_is_abandoned_when_the_stream_breaks_off() -> None:
    upload = Discarded()

    def events() -> Iterator[Event]:
        yield START
        yield Archive("base.tar", PGDATA)
        yield Data(b"x" * 100)
        raise PostgresGone("the server went away")

    with pytest.raises(PostgresGone):
        stored(events(), upload)
    assert upload.abandoned


def test_b14_a_tablespace_whose_path_is_not_utf_8_is_refused_before_its_data_comes() -> None:
    odd = Tablespace(16385, b"/srv/caf\xe9", 1024)
    with pytest.raises(TablespacePathRefused, match="16385"):
        stored([START, Tablespaces((PGDATA, odd))])


PART = b"base/5/INCREMENTAL.1259"


def archive(*members: tuple[bytes, bytes]) -> bytes:
    """A tar as PostgreSQL sends it."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in members:
            member = tarfile.TarInfo(path.decode())
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    # PostgreSQL's magic is that of POSIX; Python pads to 10 KiB, which a reader must bear.
    return written.getvalue()


def part(*blocks: int, truncation: int = 4) -> bytes:
    words = struct.pack(f"<{3 + len(blocks)}I", 0xD3AE1F0D, len(blocks), truncation, *blocks)
    return words.ljust(8192, b"\0") + bytes(8192 * len(blocks)) if blocks else words


def streamed(tar: bytes, piece: int, *, block_size: int | None) -> tuple[StoredStream, bytes]:
    """The stream and its index, when the server sends pieces of this size."""
    index, written = Discarded(), list[bytes]()
    index.write = written.append  # type: ignore[assignment,method-assign]
    pieces = [Data(tar[at : at + piece]) for at in range(0, len(tar), piece)]
    events: list[Event] = [START, Tablespaces((PGDATA,)), Archive("base.tar", PGDATA), *pieces]
    upload = Discarded()
    upload.commit = lambda: STORED  # type: ignore[attr-defined]
    found = store_stream(
        iter([*events, ManifestData(b"{}"), STOP]),
        lambda _name: upload,  # type: ignore[arg-type,return-value]
        index,  # type: ignore[arg-type]
        1 << 30,
        lambda _done, _total: None,
        block_size=block_size,
    )
    return found, b"".join(written)


STORED = StoredBlob(
    BlobName("full", "x"),
    stored_size=0,
    sha256="0" * 64,
    plain_size=0,
    plain_sha256="0" * 64,
    frames=FrameTable(),
)


@pytest.mark.parametrize("piece", [1, 7, 511, 512, 513, 4096, 1 << 20])
def test_the_index_says_which_blocks_a_part_holds_however_the_stream_is_cut(piece: int) -> None:
    label = b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n"
    tar = archive(
        (b"backup_label", label),
        (PART, part(1, 3)),
        (b"base/5/INCREMENTAL.1260", part()),
        (b"base/5/PG_VERSION", b"17\n"),
    )
    found, written = streamed(tar, piece, block_size=8192)
    index = read_index([head_line("x"), written])

    assert found.backup_label == label
    held = {member.whole_path: member.incremental for member in index.members}
    assert held == {
        b"backup_label": None,
        b"base/5/1259": IncrementalBlocks(4, array("I", [1, 3])),
        b"base/5/1260": IncrementalBlocks(4, array("I")),
        b"base/5/PG_VERSION": None,
    }
    assert found.whole_bytes == len(label) + 4 * 8192 + 4 * 8192 + 3


def test_c08_a_part_in_a_full_backup_is_refused() -> None:
    with pytest.raises(PartInFullBackup, match=r"INCREMENTAL\.1259"):
        streamed(archive((PART, part(1))), 4096, block_size=None)


def manifest(system: int | None = 42, **sizes: int) -> BackupManifest:
    files = ((path, ManifestFile(size, "", None, b"")) for path, size in by_path(sizes).items())
    return BackupManifest(2, system, ManifestFiles(files), (WAL,))


def stream(**sizes: int) -> StoredStream:
    return StoredStream(START, STOP, (PGDATA,), [], b"", by_path(sizes))


def by_path(sizes: dict[str, int]) -> dict[bytes, int]:
    return {name.replace("__", "/").encode(): size for name, size in sizes.items()}


@pytest.mark.parametrize("system", [42, None])
def test_files_of_the_manifest_and_wal_beside_them_are_accepted(system: int | None) -> None:
    check_manifest(manifest(system, a=1, base__1=0), stream(a=1, base__1=0, pg_wal__1=9), "42")


@pytest.mark.parametrize(
    ("came", "fact"),
    [
        (stream(a=1), "b'b' came with None bytes, the manifest says 2"),
        (stream(a=1, b=3), "b'b' came with 3 bytes, the manifest says 2"),
        (stream(a=1, b=2, c=3), "b'c' came but is not in the manifest"),
    ],
)
def test_b12_a_stream_that_its_manifest_does_not_describe_is_refused(
    came: StoredStream, fact: str
) -> None:
    with pytest.raises(StreamIncomplete, match=fact):
        check_manifest(manifest(a=1, b=2), came, "42")


def test_b12_the_manifest_of_another_system_is_refused() -> None:
    with pytest.raises(StreamIncomplete, match="system 43"):
        check_manifest(manifest(43, a=1), stream(a=1), "42")


def test_b12_a_backup_carries_the_wal_from_its_start_to_its_stop() -> None:
    check_wal(manifest(), stream(pg_wal__000000010000000000000002=SEGMENT), SEGMENT)


@pytest.mark.parametrize(
    ("came", "fact"),
    [
        (stream(), "000000010000000000000002 came with None bytes"),
        (stream(pg_wal__000000010000000000000002=9), "000000010000000000000002 came with 9 bytes"),
        (stream(pg_wal__000000010000000000000003=SEGMENT), "0002 came with None bytes"),
    ],
)
def test_b12_a_backup_without_a_segment_of_its_wal_is_refused(
    came: StoredStream, fact: str
) -> None:
    with pytest.raises(StreamIncomplete, match=fact):
        check_wal(manifest(), came, SEGMENT)


@pytest.mark.parametrize(
    "told", [(), (replace(WAL, timeline=2),), (replace(WAL, end=Lsn(0x2000100)),), (WAL, WAL)]
)
def test_b12_a_manifest_of_another_range_of_wal_is_refused(told: tuple[WalRange, ...]) -> None:
    came = stream(pg_wal__000000010000000000000002=SEGMENT)
    with pytest.raises(StreamIncomplete, match="not of 0/2000028 to 0/2000120"):
        check_wal(replace(manifest(), wal_ranges=told), came, SEGMENT)
