"""A place to take and restore backups: keys, a repository, pgkeep.toml, and the verbs' services.

What a test works with is read from a real settings file, the same that it can give to a subprocess.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from local.azurite import EmulatedAccount
from local.postgres_initdb import BACKUP_USER
from local.postgres_server import PostgresServer, StopMode
from local.unprivileged import identity, make_reachable_directory, server_account
from shared.domain.backup import BackupKind
from shared.domain.cluster import cluster_name
from shared.repository.backups import find_backup
from shared.repository.blob_store import (
    NO_METADATA,
    BlobInfo,
    BlobName,
    BlobStore,
    Metadata,
)
from shared.repository.layout import BackupRef
from shared.settings import ClusterSettings, Settings
from shared.settings import load as load_settings
from tests.harness.sample_database import DATABASE
from worker import wiring
from worker.commands.backup import BackupOutcome, BackupRequest, back_up
from worker.commands.restore import RestoreOutcome, RestoreRequest, restore
from worker.commands.services import Services
from worker.keys.generate import KeySet, generate_key_set

CLUSTER = "main"
CHECKOUT = Path(__file__).parents[2]
# Several volumes and several segments even of the small clusters of the tests.
VOLUME_BYTES = 8 << 20
SUBPROCESS_LIMIT_S = 120


class Silent:
    """Progress that nobody watches."""

    def phase(self, name: str) -> None:
        pass

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        pass


@dataclass
class WatchedStore:
    """Another store, whose commits (`create`, `commit_blocks`) call `before` and `after`."""

    store: BlobStore
    before: Callable[[BlobName], None] = lambda _name: None
    after: Callable[[BlobName], None] = lambda _name: None
    committed: list[BlobName] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def create(self, name: BlobName, data: bytes, *, metadata: Metadata = NO_METADATA) -> BlobInfo:
        return self._watched(name, lambda: self.store.create(name, data, metadata=metadata))

    def commit_blocks(self, name: BlobName, block_ids: Sequence[str], *, size: int) -> BlobInfo:
        return self._watched(name, lambda: self.store.commit_blocks(name, block_ids, size=size))

    def stage_block(self, name: BlobName, block_id: str, data: bytes) -> None:
        self.store.stage_block(name, block_id, data)

    def head(self, name: BlobName) -> BlobInfo:
        return self.store.head(name)

    def read(self, name: BlobName, *, limit: int) -> bytes:
        return self.store.read(name, limit=limit)

    def read_range(self, name: BlobName, offset: int, length: int) -> bytes:
        return self.store.read_range(name, offset, length)

    def list(
        self, container: str, prefix: str = "", *, start: str = "", page: int | None = None
    ) -> Iterator[BlobInfo]:
        return self.store.list(container, prefix, start=start, page=page)

    def list_folder(self, container: str, folder: str = "") -> Sequence[str]:
        return self.store.list_folder(container, folder)

    def delete(self, name: BlobName) -> None:
        self.store.delete(name)

    def _watched(self, name: BlobName, commit: Callable[[], BlobInfo]) -> BlobInfo:
        self.before(name)
        info = commit()
        with self._lock:
            self.committed.append(name)
        self.after(name)
        return info


@dataclass(frozen=True)
class Site:
    """One repository, and one cluster that is backed up into it. `values` is what the file says."""

    folder: Path
    keys: KeySet
    values: Mapping[str, Any]

    @property
    def config(self) -> Path:
        return self.folder / "pgkeep.toml"

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def settings(self) -> Settings:
        return load_settings(self.config, {})

    @property
    def cluster(self) -> ClusterSettings:
        return self.settings.cluster[0]

    def services(self, **changes: Any) -> Services:
        """A worker's services; `changes` replaces some of them."""
        return replace(wiring.services(self.settings, Silent()), **changes)

    def backup(self, **changes: Any) -> BackupOutcome:
        return back_up(self.services(**changes), self.cluster, BackupRequest())

    def incremental(self, **changes: Any) -> BackupOutcome:
        request = BackupRequest(BackupKind.INCREMENTAL)
        return back_up(self.services(**changes), self.cluster, request)

    def newest(self) -> BackupRef:
        return find_backup(self.services().store, cluster_name(CLUSTER), None)

    def request(self, target: Path, **more: Any) -> RestoreRequest:
        account = server_account()
        owner = account.name if account else None
        return RestoreRequest(cluster_name(CLUSTER), None, target, owner=owner, **more)

    def restore(self, target: Path, **more: Any) -> RestoreOutcome:
        return restore(self.services(), self.request(target, **more))

    def changed(self, **sections: Mapping[str, Any]) -> "Site":
        """The same place with other settings: the file is written anew."""
        values = {
            **self.values,
            **{
                name: {**self.values[name], **section} if name in self.values else section
                for name, section in sections.items()
            },
        }
        site = replace(self, values=values)
        site.config.write_text(toml_of(values), "utf-8")
        return site

    def copied(self, folder: Path) -> "Site":
        """With a repository of its own to damage, that begins as a copy of this one's."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.repository, folder / "repository", dirs_exist_ok=True)
        return replace(self, folder=folder).changed(
            repository={"path": str(folder / "repository")},
            drill={"scratch": str(folder / "scratch")},
        )

    def pgkeep(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`pgkeep …` as a process of its own; looks at no status."""
        return subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            check=False,
            cwd=CHECKOUT,
            env={**os.environ, "PGKEEP_CONFIG": str(self.config), **(environment or {})},
            capture_output=True,
            text=True,
            timeout=SUBPROCESS_LIMIT_S,
        )


def make_site(
    folder: Path,
    keys: KeySet,
    source: PostgresServer,
    *,
    storage: EmulatedAccount | None = None,
    database: str = DATABASE,
) -> Site:
    """`storage` None means a directory repository below `folder`, which others may enter."""
    account = server_account()
    make_reachable_directory(folder, account)
    drill = {
        "scratch": str(folder / "scratch"),
        "program_directories": [str(source.programs)],
        "start_timeout_s": 60,
    }
    values = {
        "profile": "production",
        "repository": _repository(folder, storage),
        "keys": {
            "recipients": [_pem(keys.wrapping.public), _pem(keys.escrow.public)],
            "manifest_recipient": _pem(keys.manifest.public),
            "unwrap": [_pem(keys.wrapping.private)],
            "signing": _pem(keys.signing.private),
            "pinned": [{"path": str(keys.signing.public)}],
        },
        "worker": {"volume_bytes": VOLUME_BYTES, "lease_seconds": 15},
        "drill": {**drill, "run_as": account.name} if account else drill,
        "cluster": {
            "name": CLUSTER,
            "dsn": make_conninfo(source.dsn(database, BACKUP_USER)),
            "database": database,
        },
    }
    return Site(folder, keys, values).changed()


def toml_of(values: Mapping[str, Any]) -> str:
    lines: list[str] = []
    tables = [(name, value) for name, value in values.items() if isinstance(value, Mapping)]
    plain = [(name, value) for name, value in values.items() if not isinstance(value, Mapping)]
    lines += [f"{name} = {_inline(value)}" for name, value in plain]
    for name, table in tables:
        lines.append(f"[[{name}]]" if name == "cluster" else f"[{name}]")
        lines += [f"{key} = {_inline(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def dump(server: PostgresServer, database: str = DATABASE) -> str:
    """What pg_dump says of a database, without the random words that newer ones begin with."""
    done = subprocess.run(
        [
            *(server.programs / "pg_dump", "-d", server.dsn(database)),
            "--no-unlogged-table-data",
        ],
        check=True,
        capture_output=True,
        text=True,
        env={"LC_ALL": "C"},
    )
    lines = done.stdout.splitlines()
    return "\n".join(line for line in lines if not line.startswith(("\\restrict", "\\unrestrict")))


def verify_with_postgres(programs: Path, data: Path, *more: str) -> str:
    """Runs pg_verifybackup; its words, which are empty when it finds nothing wrong."""
    done = subprocess.run(
        [programs / "pg_verifybackup", "--quiet", "--no-parse-wal", *more, data],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env={"LC_ALL": "C"},
        **identity(server_account()),
    )
    return done.stderr + done.stdout if done.returncode or done.stderr else ""


def startable(data: Path) -> bool:
    """Whether a restore that failed left what PostgreSQL would take for a data directory."""
    return (data / "global" / "pg_control").exists()


def _repository(folder: Path, storage: EmulatedAccount | None) -> dict[str, Any]:
    if storage is None:
        return {"type": "directory", "path": str(folder / "repository")}
    credential = {"kind": "emulator-key", "account_key": storage.key}
    return {"type": "azure", "account_url": storage.blob_url, "credential": credential}


def _pem(path: Path) -> dict[str, str]:
    return {"type": "pem", "path": str(path)}


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)


MakeSite = Callable[..., Site]
StartRestored = Callable[[Path, PostgresServer], PostgresServer]


@pytest.fixture(scope="session")
def worker_folder() -> Iterator[Path]:
    """Folder of this process's sites; PostgreSQL's account may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="pgkeep-test-"))
    make_reachable_directory(folder, server_account())
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def key_set(worker_folder: Path) -> KeySet:
    """One for all tests of a process: RSA keys take their time."""
    return generate_key_set(worker_folder / "keys")


@pytest.fixture
def place(worker_folder: Path) -> Iterator[Path]:
    """A folder of this test alone, that PostgreSQL's account may enter."""
    folder = Path(tempfile.mkdtemp(dir=worker_folder))
    make_reachable_directory(folder, server_account())
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def site(place: Path, key_set: KeySet, source_cluster: PostgresServer) -> Site:
    """An empty directory repository for the shared source cluster."""
    return make_site(place / "site", key_set, source_cluster)


@pytest.fixture(scope="session")
def _committed_site_of(worker_folder: Path, key_set: KeySet) -> Callable[[PostgresServer], Site]:
    @cache
    def take(source: PostgresServer) -> Site:
        site = make_site(worker_folder / f"committed-{source.major}", key_set, source)
        site.backup()
        return site

    return take


@pytest.fixture(scope="session")
def committed_site(
    source_cluster: PostgresServer, _committed_site_of: Callable[[PostgresServer], Site]
) -> Site:
    """A directory repository with one backup of the shared source. Read only: `copied` is yours."""
    return _committed_site_of(source_cluster)


@pytest.fixture
def start_restored() -> Iterator[StartRestored]:
    """`start_restored(data, source)`: a running server on a restored data directory."""
    with ExitStack() as at_the_end:

        def start(data: Path, source: PostgresServer) -> PostgresServer:
            assert data.name == "data", "PostgresServer keeps its data there"
            server = PostgresServer(source.programs, data.parent, source.passwords)
            at_the_end.callback(server.stop, StopMode.IMMEDIATE)
            server.start()
            return server

        yield start
