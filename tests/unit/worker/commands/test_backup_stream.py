"""What of BASE_BACKUP's events may become a backup: nothing that is not whole."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest

from shared.domain.lsn import Lsn
from shared.errors import PostgresGone
from worker.commands.backup_stream import (
    StoredStream,
    StreamIncomplete,
    TablespacePathRefused,
    check_manifest,
    store_stream,
)
from worker.postgres.backup_manifest import BackupManifest, ManifestFile
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

START, STOP = Start(Lsn(0x2000028), 1), Stop(Lsn(0x2000120), 1)
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
        ([START, Stop(STOP.lsn, 2)], "from timeline 1 to 2"),
        ([START, Data(b"x")], "data came before an archive"),
    ],
)
def test_a_stream_that_is_not_whole_is_refused(events: list[Event], fact: str) -> None:
    with pytest.raises(StreamIncomplete, match=fact):
        stored(events)


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


def manifest(system: int | None = 42, **sizes: int) -> BackupManifest:
    files = {path: ManifestFile(size, "", None, b"") for path, size in by_path(sizes).items()}
    return BackupManifest(2, system, files, ())


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
