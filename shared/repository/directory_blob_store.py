"""The repository in a local directory: containers are folders, blobs are files, written once.

A blob is written whole under a hidden name, fsynced, and given its name by link(2), which fails
when the name is taken: create-only and atomic in one step. Below each container,

    .incoming/<random>                       a blob on its way; litter after a crash
    .staged/<sha-256 of path>/<block id>     blocks that no commit has named yet
    .staged/<sha-256 of path>/commit-<inode> the block list that the file with this inode is made of
    .metadata/<sha-256 of path>-<inode>      metadata of the file with this inode, as JSON

No name with a part that begins with a dot is a blob, so none of this is ever listed.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from io import FileIO
from pathlib import Path
from shutil import copyfileobj
from typing import Literal
from uuid import uuid4

from shared.errors import (
    BlobAlreadyExists,
    BlobNotFound,
    BlockListInvalid,
    ContainerNotFound,
    Corrupt,
    InvalidInput,
    StorageDenied,
    StorageRequestRefused,
    StorageUnavailable,
)
from shared.repository.blob_store import NO_METADATA, BlobInfo, BlobName, Metadata

_INCOMING = ".incoming"
_STAGED = ".staged"
_METADATA = ".metadata"
_COPY_PIECE = 1024 * 1024
# What waiting may heal: space, quota, a disk or file server that is away.
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT})


class BlobNameInvalid(InvalidInput):
    """A blob name that a directory cannot hold, or that would lead out of it."""

    code = "blob-name-invalid"
    hint = "Parts between slashes are not empty and do not begin with a dot."


class DirectoryBlobStore:
    """See shared.repository.blob_store.BlobStore for the contract.

    Files get mode 0600, directories 0700: who may read the repository may copy every database.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def create_container(self, container: str) -> None:
        """Idempotent."""
        with _file_errors(container):
            _make_directories(self._root / _checked(container))

    def create(self, name: BlobName, data: bytes, *, metadata: Metadata = NO_METADATA) -> BlobInfo:
        with self._incoming(name) as file:
            _write_fully(file, data)
            record = self._metadata_file(name, os.fstat(file.fileno()).st_ino)
            if metadata:
                self._write_metadata(record, metadata)
            made = self._publish(file, name)
            if metadata and not made:
                record.unlink(missing_ok=True)
        info = self.head(name)
        if made or (info.size == len(data) and self.read_range(name, 0, info.size) == data):
            return info
        raise BlobAlreadyExists(f"{name} holds other bytes, {info.size} of {info.modified:%F %TZ}")

    def stage_block(self, name: BlobName, block_id: str, data: bytes) -> None:
        # Not fsynced: the commit copies and fsyncs, and staging alone promises nothing.
        with self._incoming(name) as file:
            _write_fully(file, data)
            block = self._staged_block(name, block_id)
            _make_directories(block.parent)
            _path_of(file).replace(block)

    def commit_blocks(self, name: BlobName, block_ids: Sequence[str], *, size: int) -> BlobInfo:
        if not self._exists(name):
            self._assemble(name, block_ids)
        info = self.head(name)
        if not self._is_made_of(name, _inode(info), block_ids):
            raise BlobAlreadyExists(f"{name} exists already, made of other blocks")
        if info.size != size:
            raise Corrupt(f"{name} has {info.size} bytes, its blocks add up to {size}")
        return info

    def head(self, name: BlobName) -> BlobInfo:
        path = self._path(name)
        with _file_errors(str(name)):
            status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise BlobNotFound(f"{name} is not a file")
        return self._info(name, status)

    def read(self, name: BlobName, *, limit: int) -> bytes:
        info = self.head(name)
        if info.size > limit:
            raise Corrupt(f"{name} has {info.size} bytes, more than the {limit} it may have")
        return self.read_range(name, 0, info.size)

    def read_range(self, name: BlobName, offset: int, length: int) -> bytes:
        path = self._path(name)
        with _file_errors(str(name)), _open(path, "r") as file:
            file.seek(offset)
            data = _read_fully(file, length)
        if len(data) != length:
            raise Corrupt(f"{name} gave {len(data)} of {length} bytes from offset {offset}")
        return data

    def list(
        self, container: str, prefix: str = "", *, start: str = "", page: int | None = None
    ) -> Iterator[BlobInfo]:
        del page  # nothing is fetched ahead
        directory = self._directory(container)
        with _file_errors(container):
            for path, status in _walk(directory, "", prefix, start):
                yield self._info(BlobName(container, path), status)

    def list_folder(self, container: str, folder: str = "") -> Sequence[str]:
        directory = self._directory(container)
        if folder:
            directory /= _checked(folder.removesuffix("/"))
        with _file_errors(container):
            return sorted(map(_sortable, _visible(directory))) if directory.is_dir() else []

    def delete(self, name: BlobName) -> None:
        info = self.head(name)
        path = self._path(name)
        with _file_errors(str(name)):
            path.unlink()
            _sync_directory(path.parent)
            self._block_list(name, _inode(info)).unlink(missing_ok=True)
            self._metadata_file(name, _inode(info)).unlink(missing_ok=True)

    def _directory(self, container: str) -> Path:
        directory = self._root / _checked(container)
        if "/" in container or not directory.is_dir():
            raise ContainerNotFound(f"{container}: the directory {directory} does not exist")
        return directory

    def _path(self, name: BlobName) -> Path:
        return self._directory(name.container) / _checked(name.path)

    def _exists(self, name: BlobName) -> bool:
        return os.path.lexists(self._path(name))

    def _staged(self, name: BlobName) -> Path:
        digest = sha256(name.path.encode()).hexdigest()
        return self._directory(name.container) / _STAGED / digest

    def _staged_block(self, name: BlobName, block_id: str) -> Path:
        return self._staged(name) / f"block-{block_id.encode().hex()}"

    def _block_list(self, name: BlobName, inode: int) -> Path:
        return self._staged(name) / f"commit-{inode}"

    def _metadata_file(self, name: BlobName, inode: int) -> Path:
        digest = sha256(name.path.encode()).hexdigest()
        return self._directory(name.container) / _METADATA / f"{digest}-{inode}"

    def _write_metadata(self, record: Path, metadata: Metadata) -> None:
        """Before the blob appears, so that it never appears without."""
        _make_directories(record.parent)
        with record.open("w", encoding="utf-8") as file:
            json.dump(dict(metadata), file)
            file.flush()
            os.fsync(file.fileno())
        _sync_directory(record.parent)

    def _info(self, name: BlobName, status: os.stat_result) -> BlobInfo:
        etag = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
        try:
            text = self._metadata_file(name, status.st_ino).read_text("utf-8")
        except FileNotFoundError:
            return BlobInfo(name, status.st_size, etag, modified)
        return BlobInfo(name, status.st_size, etag, modified, json.loads(text))

    @contextmanager
    def _incoming(self, name: BlobName) -> Iterator[FileIO]:
        """A new hidden file in the container of `name`; without another name it does not stay."""
        self._path(name)
        path = self._directory(name.container) / _INCOMING / uuid4().hex
        with _file_errors(str(name)):
            _make_directories(path.parent)
            with _open(path, "x") as file:
                try:
                    yield file
                finally:
                    path.unlink(missing_ok=True)

    def _publish(self, file: FileIO, name: BlobName) -> bool:
        """Make the file durable under its name; False when the name is taken."""
        os.fsync(file)
        path = self._path(name)
        _make_directories(path.parent)
        try:
            path.hardlink_to(_path_of(file))
        except FileExistsError:
            return False
        finally:
            _sync_directory(path.parent)
        return True

    def _assemble(self, name: BlobName, block_ids: Sequence[str]) -> None:
        """Copy the staged blocks together; of several that do so, the first to link wins."""
        with self._incoming(name) as file:
            for block_id in block_ids:
                if not self._append_block(file, name, block_id):
                    return
            record = self._block_list(name, os.fstat(file.fileno()).st_ino)
            record.write_text("\n".join(block_ids))
            if self._publish(file, name):
                self._discard_blocks(name)
            else:
                record.unlink()

    def _append_block(self, file: FileIO, name: BlobName, block_id: str) -> bool:
        """False when another commit of this name has just discarded the block."""
        try:
            with _open(self._staged_block(name, block_id), "r") as block:
                copyfileobj(block, file, _COPY_PIECE)
        except FileNotFoundError:
            if self._exists(name):
                return False
            raise BlockListInvalid(f"{name}: block {block_id!r} was never staged") from None
        return True

    def _discard_blocks(self, name: BlobName) -> None:
        for block in self._staged(name).glob("block-*"):
            block.unlink(missing_ok=True)

    def _is_made_of(self, name: BlobName, inode: int, block_ids: Sequence[str]) -> bool:
        try:
            return self._block_list(name, inode).read_text() == "\n".join(block_ids)
        except FileNotFoundError:
            return False


@contextmanager
def _file_errors(what: str) -> Iterator[None]:
    """The kernel's refusals become ours."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise BlobNotFound(f"{what} does not exist") from error
    except OSError as error:
        fact = f"{what}: {(error.strerror or str(error)).lower()}"
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise StorageDenied(
                fact, hint="Check owner, mode and mount of the directory."
            ) from error
        if error.errno in _PASSING:
            raise StorageUnavailable(fact, hint="Check space and health of the disk.") from error
        raise StorageRequestRefused(fact, hint="Check what lies at the path.") from error


def _walk(
    directory: Path, below: str, prefix: str, start: str
) -> Iterator[tuple[str, os.stat_result]]:
    """Regular files in order of path: a directory sorts as its name with the slash."""
    named = ((below + _sortable(entry), entry) for entry in _visible(directory))
    wanted = (pair for pair in named if _leads_to(pair[0], prefix, start))
    for path, entry in sorted(wanted, key=_first):
        if path.endswith("/"):
            yield from _walk(Path(entry.path), path, prefix, start)
        else:
            with suppress(FileNotFoundError):  # deleted since: as if it had been before
                yield path, entry.stat(follow_symlinks=False)


def _leads_to(path: str, prefix: str, start: str) -> bool:
    """Whether a file is asked for, or a folder may hold one that is."""
    folder = path.endswith("/")
    begins = path.startswith(prefix) or (folder and prefix.startswith(path))
    return begins and (path >= start or (folder and start.startswith(path)))


def _visible(directory: Path) -> Sequence[os.DirEntry[str]]:
    """Directories and regular files; links and hidden names are none of ours."""
    with os.scandir(directory) as entries:
        return [
            entry
            for entry in entries
            if not entry.name.startswith(".")
            and (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False))
        ]


def _sortable(entry: os.DirEntry[str]) -> str:
    return f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name


def _first(pair: tuple[str, os.DirEntry[str]]) -> str:
    return pair[0]


def _checked(text: str) -> str:
    parts = text.split("/")
    if "\0" in text or any(not part or part.startswith(".") for part in parts):
        raise BlobNameInvalid(f"{text!r} cannot name a blob in a directory")
    return text


def _open(path: Path, mode: Literal["r", "x"]) -> FileIO:
    """Unbuffered; "x" makes the file, which only this user may read."""

    def private(text: str, flags: int) -> int:
        return os.open(text, flags | os.O_NOFOLLOW, 0o600)

    return FileIO(path, mode, opener=private)


def _path_of(file: FileIO) -> Path:
    return Path(str(file.name))


def _make_directories(path: Path) -> None:
    if path.is_dir():
        return
    _make_directories(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_fully(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _read_fully(file: FileIO, length: int) -> bytes:
    """Fewer bytes than asked for at the end of the file only."""
    pieces: list[bytes] = []
    while length and (piece := file.read(length)):
        pieces.append(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _inode(info: BlobInfo) -> int:
    return int(info.etag.partition("-")[0])
