"""This project as a contender: `python -m worker backup` and `restore`, as a user runs them."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import make_conninfo

from local.azurite import EmulatedAccount
from local.benchmark.measure import Command, Usage, run_measured
from local.benchmark.place import (
    COMPRESSION_LEVEL,
    PARALLEL,
    Place,
    environment,
    fresh_emulator,
    server_pids,
)
from local.benchmark.source import DATABASE, settle
from local.postgres_initdb import BACKUP_USER, write_passfile
from local.postgres_server import PostgresServer
from shared import adapters
from shared.repository import layout
from shared.repository.azure_blob_store import AzureBlobStore
from shared.settings import load
from worker.keys.generate import KeyPair, KeySet, generate_key_set

CLUSTER = "main"


@dataclass(frozen=True, slots=True)
class Measured:
    """One backup and one restore of it."""

    backup: Usage
    restore: Usage
    stored_bytes: int


def measure_into_azurite(place: Place, source: PostgresServer, size_bytes: int) -> Measured:
    """Over HTTPS, encrypted, verified: what production does."""
    with fresh_emulator(size_bytes) as (storage, pid):
        return _measure(place, source, storage, server_pids(source, pid))


def measure_into_directory(place: Place, source: PostgresServer) -> Measured:
    """The same pipeline without a network: its own part of the cost."""
    with place.target("repository") as repository:
        return _measure(place, source, repository, server_pids(source))


def _measure(
    place: Place,
    source: PostgresServer,
    repository: EmulatedAccount | Path,
    servers: Mapping[str, int],
) -> Measured:
    writer, reader = configure(place, source, repository)
    settle(source)
    log = place.work / "pgkeep.log"
    backup = run_measured(verb("backup", CLUSTER, "--json", config=writer), servers, log)
    with place.target("pgkeep") as target:
        restore = run_measured(restore_verb(place, target, config=reader), servers, log)
    return Measured(backup.usage, restore.usage, json.loads(backup.output)["stored_size"])


def configure(
    place: Place, source: PostgresServer, repository: EmulatedAccount | Path
) -> tuple[Path, Path]:
    """Settings of the one who writes and of the one who reads; containers in the emulator.

    As in production: the writer can open nothing but manifests, which incrementals need; the
    reader can sign nothing.
    """
    keys = _keys(place.work / "keys")
    common = _common(place, source, repository, keys)
    writer = _written(place.work / "writer.toml", common, _writing(keys, [keys.manifest]))
    reader = _written(place.work / "reader.toml", common, _reading(keys))
    store = adapters.blob_store(load(writer, {}).repository, threads=1)
    if isinstance(store, AzureBlobStore):
        for container in layout.CONTAINERS:
            store.create_container(container)
        store.close()
    return writer, reader


def configure_composer(
    place: Place, source: PostgresServer, repository: EmulatedAccount | Path
) -> Path:
    """Settings of the one who makes synthetic fulls: reads everything, writes and signs."""
    keys = _keys(place.work / "keys")
    writing = _writing(keys, [keys.wrapping, keys.manifest])
    path = place.work / "composer.toml"
    return _written(path, _common(place, source, repository, keys), writing)


def _keys(folder: Path) -> KeySet:
    return KeySet.below(folder) if folder.exists() else generate_key_set(folder)


def _written(path: Path, *sections: str) -> Path:
    path.touch(0o600)
    path.write_text("\n".join(sections), "utf-8")
    return path


def _common(
    place: Place, source: PostgresServer, repository: EmulatedAccount | Path, keys: KeySet
) -> str:
    passfile = place.work / "backup_user.passfile"
    write_passfile(passfile, {BACKUP_USER: source.passwords[BACKUP_USER]})
    # Whose calls the WAL agent answers.
    drill = "" if place.account is None else f'[drill]\nrun_as = "{place.account.name}"'
    dsn = make_conninfo(host="127.0.0.1", port=source.port, user=BACKUP_USER, dbname=DATABASE)
    return f"""
profile = "production"
[repository]
{_repository(repository)}
[worker]
compression_level = {COMPRESSION_LEVEL}
compression_threads = {PARALLEL}
{drill}
[wal]
socket = "{place.work / "wal.sock"}"
spool = "{place.work / "wal-spool"}"
parallel = {PARALLEL}
[[cluster]]
name = "{CLUSTER}"
dsn = "{dsn}"
password_file = "{passfile}"
database = "{DATABASE}"
[keys]
pinned = [{{ path = "{keys.signing.public}" }}]
"""


def _writing(keys: KeySet, opens: Sequence[KeyPair]) -> str:
    unwrap = ", ".join(_pem(pair.private) for pair in opens)
    return f"""
recipients = [{_pem(keys.wrapping.public)}, {_pem(keys.escrow.public)}]
manifest_recipient = {_pem(keys.manifest.public)}
unwrap = [{unwrap}]
signing = {_pem(keys.signing.private)}
"""


def _reading(keys: KeySet) -> str:
    return f"unwrap = [{_pem(keys.wrapping.private)}]\n"


def _pem(path: Path) -> str:
    return f'{{ type = "pem", path = "{path}" }}'


def _repository(repository: EmulatedAccount | Path) -> str:
    if isinstance(repository, Path):
        return f'type = "directory"\npath = "{repository}"'
    return f"""
type = "azure"
account_url = "{repository.blob_url}"
credential = {{ kind = "emulator-key", account_key = "{repository.key}" }}
ca_file = "{repository.ca_file}"
"""


def restore_verb(place: Place, target: Path, *more: str, config: Path) -> Command:
    owner = () if place.account is None else ("--owner", place.account.name)
    return verb("restore", CLUSTER, str(target), *more, *owner, "--json", config=config)


def verb(*words: str, config: Path) -> Command:
    """As a user types it."""
    arguments = [sys.executable, "-m", "worker", *words, "--config", str(config)]
    return Command(arguments, environment())
