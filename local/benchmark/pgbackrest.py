"""pgBackRest, where the machine has it: two processes, zstd, against the same emulator over HTTPS.

The WAL is left out (`archive-check=n`): pgkeep stores the WAL that its backup needs, pgBackRest
would have PostgreSQL archive it meanwhile. So the comparison favours pgBackRest by one segment.
Small files are bundled, which is what its manual recommends for object stores.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

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
from local.benchmark.source import settle
from local.postgres_initdb import SUPERUSER
from local.postgres_server import PostgresServer
from local.unprivileged import hand_over
from shared.repository.azure_blob_store import open_blob_store

STANZA = "main"
CONTAINER = "pgbackrest"
# The release that brought support for a PostgreSQL major (https://pgbackrest.org/release.html).
_NEWEST_MAJOR_SINCE = {(2, 41): 15, (2, 48): 16, (2, 52): 17, (2, 55): 18}


@dataclass(frozen=True, slots=True)
class Measured:
    backup: Usage
    restore: Usage
    stored_bytes: int


def installed_version() -> str | None:
    """Such as 2.45; None when this machine has no pgBackRest."""
    program = shutil.which("pgbackrest")
    if program is None:
        return None
    said = subprocess.run([program, "version"], check=True, capture_output=True, text=True).stdout
    return said.split()[-1]


def newest_major(version: str) -> int:
    """The newest PostgreSQL that this release of pgBackRest knows; 0 for none of ours."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    known = [major for since, major in _NEWEST_MAJOR_SINCE.items() if numbers >= since]
    return max(known, default=0)


def measure(place: Place, source: PostgresServer, size_bytes: int, *, cipher: bool) -> Measured:
    with fresh_emulator(size_bytes) as (storage, pid):
        store = open_blob_store(storage.blob_url, storage.credential, ca_file=str(storage.ca_file))
        store.create_container(CONTAINER)
        run = Run(place, source, configure(place, source, storage, cipher=cipher))
        run_measured(run.command("stanza-create", "--no-online"), {}, run.log)
        settle(source)
        servers = server_pids(source, pid)
        backup = run_measured(run.command("backup", "--type=full"), servers, run.log)
        stored = sum(blob.size for blob in store.list(CONTAINER))
        store.close()
        with place.target("pgbackrest-restored") as target:
            command = run.command("restore", "--type=none", f"--pg1-path={target}")
            restore = run_measured(command, servers, run.log)
    return Measured(backup.usage, restore.usage, stored)


@dataclass(frozen=True, slots=True)
class Run:
    place: Place
    source: PostgresServer
    config: Path

    @property
    def log(self) -> Path:
        return self.place.work / "pgbackrest.log"

    def command(self, *words: str) -> Command:
        arguments = ["pgbackrest", f"--config={self.config}", f"--stanza={STANZA}", *words]
        password = self.source.passwords[SUPERUSER]
        return Command(arguments, environment(PGPASSWORD=password), self.place.account)


def configure(
    place: Place,
    source: PostgresServer,
    storage: EmulatedAccount,
    *,
    cipher: bool,
    data: Path | None = None,
) -> Path:
    """Its configuration file; `data` for another data directory than the server's."""
    folder = place.folder("pgbackrest")
    if storage.ca_file is not None:
        shutil.copy(storage.ca_file, folder / "ca.pem")
    options = {**_options(folder, storage), **(_CIPHER if cipher else {})}
    stanza = {
        "pg1-path": data or source.data,
        "pg1-port": source.port,
        "pg1-socket-path": source.socket_directory,
        "pg1-user": SUPERUSER,
    }
    config = folder / "pgbackrest.conf"
    config.write_text(_section("global", options) + _section(STANZA, stanza), "utf-8")
    hand_over(folder, place.account)
    return config


_CIPHER: Mapping[str, object] = {
    "repo1-cipher-type": "aes-256-cbc",
    "repo1-cipher-pass": "only for a benchmark",
}


def _options(folder: Path, storage: EmulatedAccount) -> dict[str, object]:
    return {
        "process-max": PARALLEL,
        "compress-type": "zst",
        "compress-level": COMPRESSION_LEVEL,
        "start-fast": "y",
        "archive-check": "n",
        "archive-async": "y",
        "spool-path": folder / "spool",
        "log-level-console": "warn",
        "log-level-file": "off",
        "lock-path": folder / "lock",
        "log-path": folder,
        "repo1-type": "azure",
        "repo1-path": "/",
        "repo1-bundle": "y",
        "repo1-azure-account": storage.name,
        "repo1-azure-key": storage.key,
        "repo1-azure-container": CONTAINER,
        "repo1-azure-uri-style": "path",
        # By name: pgBackRest does not compare addresses with those in a certificate.
        "repo1-storage-host": "localhost",
        "repo1-storage-port": urlsplit(storage.blob_url).port,
        "repo1-storage-ca-file": folder / "ca.pem",
        "repo1-retention-full": 9,
    }


def _section(name: str, options: Mapping[str, object]) -> str:
    return f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in options.items())
