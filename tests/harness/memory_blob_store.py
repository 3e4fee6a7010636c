"""A blob store in memory, with a clock of one's own: for simulations of whole fleets.

It passes the same contract as those for a directory and for Azure, tests/contract/test_blob_*.py.
Blobs are kept by the first folder of their path, which is a cluster's name, so that to list one
cluster costs nothing for the others.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count, takewhile
from threading import RLock

from shared.errors import (
    BlobAlreadyExists,
    BlobNotFound,
    BlockListInvalid,
    ContainerNotFound,
    Corrupt,
)
from shared.repository.blob_store import NO_METADATA, BlobInfo, BlobName, Metadata


@dataclass(slots=True)
class _Blob:
    info: BlobInfo
    data: bytes
    blocks: tuple[str, ...] = ()


@dataclass(slots=True)
class _Container:
    """`folders` holds sorted paths by the part of them up to the first slash."""

    blobs: dict[str, _Blob] = field(default_factory=dict)
    staged: dict[str, dict[str, bytes]] = field(default_factory=dict)
    folders: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def add(self, path: str, blob: _Blob) -> None:
        folder = _folder(path)
        if folder not in self.folders:
            self.folders[folder] = []
            insort(self.names, folder)
        insort(self.folders[folder], path)
        self.blobs[path] = blob

    def remove(self, path: str) -> None:
        paths = self.folders[_folder(path)]
        del paths[bisect_left(paths, path)], self.blobs[path]

    def paths(self, prefix: str, start: str) -> Iterator[str]:
        """In order; a path sorts as its folder does, because the folder begins it."""
        first = _folder(prefix)
        if first.endswith("/"):
            folders: Iterable[str] = [first]
        else:
            known = self.names[bisect_left(self.names, first) :]
            folders = takewhile(lambda name: name.startswith(first), known)
        for folder in folders:
            paths = self.folders.get(folder, [])
            begin = bisect_left(paths, max(prefix, start))
            yield from takewhile(lambda path: path.startswith(prefix), paths[begin:])


def _folder(path: str) -> str:
    return path[: path.find("/") + 1] or path


def _now() -> datetime:
    return datetime.now(UTC)


class MemoryBlobStore:
    """See shared.repository.blob_store.BlobStore for the contract."""

    def __init__(self, containers: Iterable[str], clock: Callable[[], datetime] = _now) -> None:
        self._containers = {name: _Container() for name in containers}
        self._clock = clock
        self._etags = count(1)
        self._lock = RLock()

    def create(self, name: BlobName, data: bytes, *, metadata: Metadata = NO_METADATA) -> BlobInfo:
        with self._lock:
            known = self._container(name.container).blobs.get(name.path)
            if known is None:
                return self._add(name, data, metadata, ())
            if known.data != data:
                raise BlobAlreadyExists(f"{name} exists with other content")
            return known.info

    def stage_block(self, name: BlobName, block_id: str, data: bytes) -> None:
        with self._lock:
            self._container(name.container).staged.setdefault(name.path, {})[block_id] = data

    def commit_blocks(self, name: BlobName, block_ids: Sequence[str], *, size: int) -> BlobInfo:
        with self._lock:
            container, wanted = self._container(name.container), tuple(block_ids)
            known = container.blobs.get(name.path)
            if known is not None and known.blocks != wanted:
                raise BlobAlreadyExists(f"{name} exists with other content")
            info = known.info if known else self._commit(container, name, wanted)
        if info.size != size:
            raise Corrupt(f"{name} has {info.size} bytes, its blocks add up to {size}")
        return info

    def head(self, name: BlobName) -> BlobInfo:
        return self._blob(name).info

    def read(self, name: BlobName, *, limit: int) -> bytes:
        data = self._blob(name).data
        if len(data) > limit:
            raise Corrupt(f"{name} has {len(data)} bytes, more than the {limit} that are allowed")
        return data

    def read_range(self, name: BlobName, offset: int, length: int) -> bytes:
        data = self._blob(name).data[offset : offset + length]
        if len(data) != length:
            raise Corrupt(f"{name} ends before byte {offset + length}")
        return data

    def list(
        self, container: str, prefix: str = "", *, start: str = "", page: int | None = None
    ) -> Iterator[BlobInfo]:
        del page
        with self._lock:
            known = self._container(container)
            found = [known.blobs[path].info for path in known.paths(prefix, start)]
        yield from found

    def list_folder(self, container: str, folder: str = "") -> Sequence[str]:
        with self._lock:
            below = self._container(container).paths(folder, "")
            return list(dict.fromkeys(_folder(path[len(folder) :]) for path in below))

    def delete(self, name: BlobName) -> None:
        with self._lock:
            self._blob(name)
            self._container(name.container).remove(name.path)

    def _commit(self, container: _Container, name: BlobName, wanted: Sequence[str]) -> BlobInfo:
        staged = container.staged.get(name.path, {})
        if not set(wanted) <= staged.keys():
            raise BlockListInvalid(f"{name}: a block is not there")
        del container.staged[name.path]
        data = b"".join(staged[block_id] for block_id in wanted)
        return self._add(name, data, NO_METADATA, tuple(wanted))

    def _add(
        self, name: BlobName, data: bytes, metadata: Metadata, blocks: tuple[str, ...]
    ) -> BlobInfo:
        info = BlobInfo(name, len(data), f"{next(self._etags)}", self._clock(), dict(metadata))
        self._container(name.container).add(name.path, _Blob(info, data, blocks))
        return info

    def _blob(self, name: BlobName) -> _Blob:
        found = self._container(name.container).blobs.get(name.path)
        if found is None:
            raise BlobNotFound(f"{name} does not exist")
        return found

    def _container(self, name: str) -> _Container:
        if name not in self._containers:
            raise ContainerNotFound(f"container {name} does not exist")
        return self._containers[name]
