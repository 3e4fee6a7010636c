"""Chains of real backups, and PostgreSQL's own tools as judges of what is restored from them.

The oracle never sees our planner: every backup's archives are unpacked as pg_basebackup would have
left them, and pg_combinebackup makes of them what we should make. Then pg_verifybackup judges our
files, and a server on them answers to pg_amcheck and to pg_dumpall.
"""

import hashlib
import os
import re
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from shutil import rmtree
from types import SimpleNamespace
from typing import Any, Final

from local.postgres_initdb import SUPERUSER, ClusterOptions, clean_environment
from local.postgres_server import PostgresServer, StopMode
from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.backup_index import INCREMENTAL_PREFIX
from shared.domain.cluster import cluster_name
from shared.repository import layout
from shared.repository.backups import read_backup
from shared.repository.blob_store import BlobName
from shared.repository.documents import BackupDocument
from shared.repository.layout import BackupRef
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import programs_of
from tests.harness.worker_services import (
    CLUSTER,
    Site,
    WatchedStore,
    make_site,
    verify_with_postgres,
)
from worker.commands.backup import BackupRequest, back_up
from worker.commands.opened_backup import OpenedBackup, open_backup
from worker.commands.restore import restore
from worker.commands.services import Services
from worker.keys.generate import KeySet
from worker.pipeline.sealed_download import read_whole

BLOCK: Final = 8192
# What a restore writes itself: the manifest, how to recover, where tablespaces lie. Of each,
# `judge` or another test looks at the content.
OURS: Final = frozenset(
    {"backup_manifest", "postgresql.auto.conf", "recovery.signal", "tablespace_map"}
)
OPTIONS: Final = ClusterOptions(
    wal_segment_mb=1,
    fsync=False,
    settings={
        "shared_buffers": "16MB",
        "max_connections": "40",
        "autovacuum": "off",
        "wal_keep_size": "512MB",
        "allow_in_place_tablespaces": "on",
    },
)
# About 20 MB of a new file, which goes into an incremental backup as a whole.
BULK: Final = (
    "CREATE TABLE bulk AS SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 30000) n"
)
_OPEN_LIMIT_S = 60
_DEPTH = 4
_LOCATION: Final = re.compile(r"(?<= LOCATION )'[^']+'")
_VISIBILITY_MAP: Final = re.compile(r"/[0-9]+_vm(\.[0-9]+)?\Z")


class ProgramFailed(AssertionError):
    """One of PostgreSQL's programs has something against what it was given."""


@dataclass(frozen=True)
class Link:
    """A backup, and what pg_dumpall said of its source afterwards, if the source stood still."""

    document: BackupDocument
    dump: str | None

    @property
    def label(self) -> str:
        return self.document.label

    @property
    def parent(self) -> str | None:
        """Its label."""
        return self.document.parent.label if self.document.parent else None

    @property
    def ref(self) -> BackupRef:
        return BackupRef(cluster_name(CLUSTER), BackupLabel.parse(self.label))


@dataclass
class _Hold:
    """Starts the work at the first commit of an archive, and waits there for its WAL."""

    source: PostgresServer
    start: Callable[[], Future[None]]
    much_wal: int
    _work: Future[None] | None = None

    def __call__(self, name: BlobName) -> None:
        if self._work is None and "/base." in name.path:
            begin = self._written(0)
            self._work = self.start()
            wait_until(lambda: self._written(begin) > self.much_wal, 60, "changes are made")

    def finish(self) -> None:
        assert self._work is not None, "no archive was committed"
        self._work.result()

    def _written(self, since: int) -> int:
        [[position]] = self.source.query("SELECT pg_current_wal_insert_lsn() - '0/0'")
        return int(position) - since


@dataclass
class ChainLab:
    """A source, its repository, and `place` for everything that is made of the backups."""

    source: PostgresServer
    site: Site
    place: Path
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1000)))

    def run(self, *statements: str) -> None:
        """As the superuser, each in a transaction of its own."""
        with self.source.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def relation(self, table: str) -> str:
        """The path of its main fork's first segment, below the data directory."""
        with self.source.connect() as connection:
            found = connection.execute("SELECT pg_relation_filepath(%s)", [table]).fetchone()
        assert found
        return str(found[0])

    def take(self, kind: BackupKind = BackupKind.INCREMENTAL) -> Link:
        """One more backup, of the kind that was asked for."""
        document = self._take(kind, self.site.services())
        return Link(document, dump_all(self.source))

    def take_beside(self, work: Callable[[], None], much_wal: int) -> Link:
        """An incremental backup while `work` goes on, which writes that much WAL meanwhile.

        There must be a tablespace: its archive comes first, and is held up until so much has
        happened, while most of the data directory, more than sockets hold, is still to be sent.
        The link has no dump: nobody can say what the source held as the backup ended, and a
        database dropped by `work` would fail pg_dumpall.
        """
        self.run("DROP TABLE IF EXISTS bulk", BULK)
        with ThreadPoolExecutor(1) as executor:
            hold = _Hold(self.source, partial(executor.submit, work), much_wal)
            services = self.site.services(
                store=WatchedStore(self.site.services().store, before=hold)
            )
            document = self._take(BackupKind.INCREMENTAL, services)
            hold.finish()
        return Link(document, dump=None)

    def _take(self, kind: BackupKind, services: Services) -> BackupDocument:
        outcome = back_up(services, self.site.cluster, BackupRequest(kind=kind))
        assert outcome.document.kind is kind, outcome.document.instead_of_incremental
        return outcome.document

    def raw(self, link: Link) -> Path:
        """Its data directory, incremental files and all, as `pg_basebackup --format=plain`."""
        data = self.place / "raw" / link.label / "data"
        if not data.exists():
            data.mkdir(parents=True)
            services = self.site.services()
            stored = read_backup(services.store, link.ref, services.pinned)
            _unpack(open_backup(services, stored), data)
        return data

    def combined(self, *links: Link) -> Path:
        """What pg_combinebackup makes of them in one run. Raises ProgramFailed."""
        return self._combine([self.raw(link) for link in links])

    def combined_pairwise(self, full: Link, *links: Link) -> Iterator[Path]:
        """For each link what it makes of the link and the result before it, until the next."""
        result = self.raw(full)
        for link in links:
            before, result = result, self._combine([result, self.raw(link)])
            if before != self.raw(full):
                discard(before)
            yield result

    @contextmanager
    def restored(self, link: Link) -> Iterator[Path]:
        """Our restore, which pg_verifybackup has nothing against; it is removed at the end."""
        data = self.new("restored") / "data"
        request = self.site.request(data, tablespaces_below=data.parent, sync=False)
        restore(self.site.services(), replace(request, label=link.label))
        ignored = ("--ignore=tablespace_map",) if link.document.tablespaces else ()
        said = verify_with_postgres(self.source.programs, data, *ignored)
        assert said == "", said
        yield data
        discard(data)

    @contextmanager
    def started(self, data: Path) -> Iterator[PostgresServer]:
        """A server on a restored directory, open for writes."""
        server = PostgresServer(self.source.programs, data.parent, self.source.passwords)
        try:
            server.start()
            in_recovery = "SELECT 1 WHERE pg_is_in_recovery()"
            wait_until(lambda: not server.query(in_recovery), _OPEN_LIMIT_S, "the copy is open")
            yield server
        finally:
            server.stop(StopMode.IMMEDIATE)

    def judge(self, link: Link, data: Path) -> None:
        """A restored directory holds what the source held, and its indexes fit its tables."""
        with self.started(data) as copy:
            assert dump_all(copy) == link.dump
            check_with_amcheck(copy)
            assert lying_visibility_maps(copy) == []

    def _combine(self, inputs: Sequence[Path]) -> Path:
        output = self.new("combined") / "data"
        spaces = [path for path in (inputs[-1] / "pg_tblspc").iterdir() if path.is_symlink()]
        mapping = (f"-T{path.readlink()}={output.parent / path.name}" for path in spaces)
        programs = self.source.programs
        _run(programs / "pg_combinebackup", "--no-sync", *mapping, "-o", output, *inputs)
        return output

    def new(self, kind: str) -> Path:
        """A directory."""
        folder = self.place / f"{kind}-{next(self._numbers)}"
        folder.mkdir()
        return folder


def discard(data: Path) -> None:
    """With its tablespaces. What is removed soon, the kernel need not write to the disk."""
    rmtree(data.parent)


@contextmanager
def chain_lab(major: int, keys: KeySet, place: Path) -> Iterator[ChainLab]:
    """A running cluster of its own, empty, and a directory repository, below `place`."""
    with PostgresServer.create(programs_of(major), place / "source", OPTIONS) as source:
        yield ChainLab(source, make_site(place / "site", keys, source, database="postgres"), place)


def differences(ours: Path, theirs: Path) -> dict[str, list[int]]:
    """Of two data directories, tablespaces included: each file that is not the same in both.

    With the numbers of the blocks that differ. A file of `OURS` is not looked at. A block of a
    visibility map may be zeros in ours: what an older link says of it is not believed (0021).
    """
    one, other = _tree(ours), _tree(theirs)
    paths = sorted(one.keys() | other.keys())
    found = {
        path: _differing_blocks(ours / path, theirs / path)
        for path in paths
        if one.get(path) != other.get(path)
    }
    return {
        path: blocks
        for path, blocks in found.items()
        if not (_VISIBILITY_MAP.search(path) and _all_zeros(ours / path, theirs / path, blocks))
    }


def _all_zeros(ours: Path, theirs: Path, blocks: list[int]) -> bool:
    same_size = ours.stat().st_size == theirs.stat().st_size
    return same_size and all(not any(block_of(ours, number)) for number in blocks)


def truncation_length(data: Path, path: str) -> int:
    """What an incremental backup says of the file of a relation that it holds in part."""
    part = (data / path).with_name(f"{INCREMENTAL_PREFIX.decode()}{Path(path).name}")
    _magic, _blocks, length = struct.unpack_from("<III", part.read_bytes())
    return int(length)


def block_of(path: Path, number: int) -> bytes:
    with path.open("rb") as file:
        file.seek(number * BLOCK)
        return file.read(BLOCK)


def dump_all(server: PostgresServer) -> str:
    """What pg_dumpall says, without its random words and where tablespaces lie."""
    said = _ask(server, "pg_dumpall", "--no-unlogged-table-data", "--no-sync")
    lines = said.splitlines()
    kept = (line for line in lines if not line.startswith(("\\restrict", "\\unrestrict")))
    return _LOCATION.sub("''", "\n".join(kept))


def check_with_amcheck(server: PostgresServer) -> None:
    """Every index against its table, and every table against its own rules. Adds the extension."""
    _ask(server, "pg_amcheck", "--all", "--install-missing", "--heapallindexed")


def lying_visibility_maps(server: PostgresServer) -> list[tuple[Any, ...]]:
    """Tables whose maps say of pages that all rows are visible, or frozen, and it is not so."""
    server.query("CREATE EXTENSION IF NOT EXISTS pg_visibility")
    return server.query(
        """
        SELECT oid::regclass::text FROM pg_class
         WHERE relkind IN ('r', 'm', 't') AND relpersistence = 'p'
           AND (EXISTS (SELECT FROM pg_check_visible(oid))
                OR EXISTS (SELECT FROM pg_check_frozen(oid)))
        """
    )


def _tree(data: Path) -> dict[str, str]:
    """By path below `data`: the digest of a file, or that it is a directory."""
    found: dict[str, str] = {}
    for folder, folders, files in os.walk(data, followlinks=True):
        below = Path(folder).relative_to(data)
        found |= {str(below / name): "directory" for name in folders}
        for path in (below / name for name in files if str(below / name) not in OURS):
            with (data / path).open("rb") as file:
                found[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _differing_blocks(one: Path, other: Path) -> list[int]:
    contents = [path.read_bytes() if path.is_file() else b"" for path in (one, other)]
    size = max(map(len, contents))
    return [
        at // BLOCK
        for at in range(0, size, BLOCK)
        if len({content[at : at + BLOCK] for content in contents}) > 1
    ]


def _unpack(backup: OpenedBackup, data: Path) -> None:
    volumes = backup.stored.document.volumes
    with ThreadPoolExecutor(2) as executor:
        for archive, own in groupby(volumes, key=lambda volume: volume.archive):
            chunks = _plain(backup, [volume.name for volume in own], executor)
            target = data
            if archive != layout.PGDATA_ARCHIVE:
                target = data.parent / archive
                target.mkdir()
            source: Any = SimpleNamespace(read=lambda _size, chunks=chunks: next(chunks, b""))
            with tarfile.open(fileobj=source, mode="r|", bufsize=1 << 20) as tar:
                tar.extractall(target, filter=_as_it_is)  # noqa: S202 - PostgreSQL's own archive
        (data / layout.BACKUP_MANIFEST).write_bytes(backup.manifest(executor))
    _place_tablespaces(data)


def _plain(backup: OpenedBackup, volumes: Sequence[str], executor: Executor) -> Iterator[bytes]:
    """An archive's tar stream, one volume behind the other."""
    for name in volumes:
        yield from read_whole(backup.volume(name), executor, _DEPTH)


def _as_it_is(member: tarfile.TarInfo, _path: str) -> tarfile.TarInfo:
    """Ours to read: the owner of the source's files need not exist here. Links lead elsewhere."""
    return member.replace(uid=os.geteuid(), gid=os.getegid(), uname="", gname="", deep=False)


def _place_tablespaces(data: Path) -> None:
    """Each where its link leads; in place, without a link, where it belongs."""
    for archive in (path for path in data.parent.iterdir() if path != data):
        place = data / "pg_tblspc" / archive.name
        if place.is_symlink():
            place.unlink()
            place.symlink_to(archive)
        else:
            if place.exists():
                place.rmdir()
            archive.rename(place)


def _ask(server: PostgresServer, program: str, *options: str) -> str:
    """A client program as the superuser, in as many databases as it likes."""
    address = ("--host=127.0.0.1", f"--port={server.port}", f"--username={SUPERUSER}")
    password = {"PGPASSWORD": server.passwords[SUPERUSER]}
    return _run(server.programs / program, *address, *options, **password)


def _run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env={**clean_environment(), **environment},
        cwd="/",
    )
    if done.returncode:
        raise ProgramFailed(f"{Path(command[0]).name}: {done.stdout}{done.stderr}")
    return done.stdout
