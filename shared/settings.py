"""Settings of both edges: one TOML file (`pgkeep.toml`), every key overridable by environment.

`PGKEEP_CONFIG` names the file. A variable such as PGKEEP_REPOSITORY__ACCOUNT_URL overrides the key
`account_url` of the section `[repository]`. docs/reference/settings.md is generated from here.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from shared.domain.field_types import Cluster, Cron
from shared.errors import SettingsInvalid

CONFIG_VARIABLE = "PGKEEP_CONFIG"
ENVIRONMENT_PREFIX = "PGKEEP_"
_SECTIONS = ("repository", "queues", "catalogue", "keys", "worker", "wal", "drill")


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Credential(Section):
    """How to authenticate to Azure. Exactly one identity, never a chain that guesses."""

    kind: Literal["managed-identity", "workload-identity", "azure-cli", "emulator-key"] = Field(
        "managed-identity", description="which identity; `emulator-key` works on loopback only"
    )
    client_id: str | None = Field(None, description="client id of the user-assigned identity")
    account_key: SecretStr | None = Field(None, description="the emulator's account key")


class AzureRepository(Section):
    """`[repository]` on Azure Blob Storage."""

    type: Literal["azure"] = "azure"
    account_url: str = Field(description="blob endpoint, https://<account>.blob.core.windows.net")
    credential: Credential = Field(default_factory=Credential)
    ca_file: Path | None = Field(None, description="certificate authority, for the emulator")


class DirectoryRepository(Section):
    """`[repository]` in a directory, for development and for copies on other media."""

    type: Literal["directory"]
    path: Path = Field(description="directory that holds the containers")


class Queues(Section):
    """`[queues]`: where jobs and events travel; not needed for `pgkeep` on a terminal."""

    account_url: str = Field(description="queue endpoint, https://<account>.queue.core.windows.net")
    credential: Credential = Field(default_factory=Credential)
    ca_file: Path | None = Field(None, description="certificate authority, for the emulator")


class Catalogue(Section):
    """`[catalogue]`: the index database; only the function app and `catalogue rebuild` use it."""

    dsn: SecretStr = Field(description="conninfo of the catalogue database")


class PemKey(Section):
    """An RSA key in a PEM file."""

    type: Literal["pem"] = "pem"
    path: Path = Field(description="PEM file; mode 0600 when it holds a private key")
    passphrase: SecretStr | None = Field(None, description="of an encrypted private key")


class KeyVaultKey(Section):
    """A key in Azure Key Vault. Wrapping needs only `public_jwk` and no call."""

    type: Literal["key-vault"]
    key_id: str = Field(description="full id with version, https://<vault>/keys/<name>/<version>")
    public_jwk: Path | None = Field(None, description="public half as JWK, for wrapping")
    credential: Credential = Field(default_factory=Credential)


AnyKey = Annotated[PemKey | KeyVaultKey, Field(discriminator="type")]


class PinnedKey(Section):
    """A key whose signatures are believed. Never read from the repository itself."""

    path: Path = Field(description="public key, PEM: Ed25519 or EC P-256")
    key_id: str | None = Field(None, description="defaults to the key's fingerprint")
    revoked_after: AwareDatetime | None = Field(
        None, description="documents created later are refused"
    )


class Keys(Section):
    """`[keys]`: who can open a backup, who signs, whom we believe."""

    recipients: tuple[AnyKey, ...] = Field(
        (), description="public keys every data key is wrapped to"
    )
    manifest_recipient: AnyKey | None = Field(
        None, description="public key the writer itself can unwrap, for backup manifests only"
    )
    unwrap: tuple[AnyKey, ...] = Field((), description="private keys; only where backups are read")
    signing: AnyKey | None = Field(None, description="signs documents; only where they are written")
    pinned: tuple[PinnedKey, ...] = Field(
        (), description="public keys whose signatures are believed"
    )


class Worker(Section):
    """`[worker]`: how hard the container works. Memory grows with threads; see the reference."""

    compression_level: int = Field(1, ge=1, le=19, description="zstd level")
    compression_threads: int = Field(2, ge=1, le=32, description="frames compressed at once")
    transfer_threads: int = Field(4, ge=1, le=16, description="blocks or ranges in flight")
    manifest_checksums: Literal["CRC32C", "SHA256"] = Field(
        "CRC32C", description="per-file checksum that PostgreSQL writes into backup_manifest"
    )
    checkpoint: Literal["fast", "spread"] = Field("fast", description="how a backup starts")
    volume_bytes: int = Field(64 << 30, ge=1 << 20, le=64 << 30, description="cut volumes at this")
    lease_seconds: int = Field(60, ge=15, le=60, description="life of the backup lease")


class Wal(Section):
    """`[wal]`: the WAL agent and receiver on this host."""

    socket: Path = Field(
        Path("/run/pgkeep/wal.sock"), description="where `pgkeep-wal` meets the agent"
    )
    spool: Path = Field(
        Path("/var/tmp/pgkeep-wal"),  # noqa: S108 - the operator's choice; the agent makes its own 0700 folder
        description="directory for prefetched WAL; never inside a data directory",
    )
    parallel: int = Field(3, ge=1, le=16, description="segments in flight to or from storage")
    prefetch_bytes: int = Field(
        256 << 20, ge=1 << 20, le=16 << 30, description="WAL that may lie in the spool"
    )
    report_seconds: int = Field(60, ge=1, le=3600, description="how often WAL progress is reported")


class Drill(Section):
    """`[drill]`: where restores are rehearsed."""

    scratch: Path = Field(Path("/var/tmp/pgkeep-drills"), description="directory for instances")  # noqa: S108 - the operator's choice; every drill makes its own 0700 folder below
    program_directories: tuple[Path, ...] = Field(
        (), description="bin directories of PostgreSQL versions, before /usr/lib/postgresql"
    )
    run_as: str | None = Field(None, description="account for PostgreSQL when pgkeep runs as root")
    start_timeout_s: int = Field(3600, ge=10, description="until the instance must be open")
    statement_timeout_s: int = Field(300, ge=1, description="for each validation statement")


class Schedule(Section):
    """`[cluster.schedule]`: five-field cron in UTC."""

    full: Cron | Literal[False] = Field(
        "0 3 * * 0", description="full backups; false switches them off"
    )
    incremental: Cron | Literal[False] = Field(
        "0 2 * * *",
        description="incremental backups; where none can be taken (PostgreSQL 15 and 16, no WAL "
        "summaries) a full one is, and called so; false switches them off",
    )


class Incremental(Section):
    """`[cluster.incremental]`: on what an incremental backup may build."""

    when_impossible: Literal["full", "fail"] = Field(
        "full", description="take a full backup and say why, or fail"
    )
    chain_limit: int = Field(
        7, ge=1, le=100, description="incrementals on one full backup; the next one is full"
    )
    parent: Literal["verified", "newest"] = Field(
        "verified", description="prefer a parent that was verified, or take the newest in any case"
    )


class ClusterWal(Section):
    """`[cluster.wal]`: how the cluster's WAL is received, and when it counts as behind."""

    slot: str = Field(
        "pgkeep", pattern=r"^[a-z0-9_]{1,63}$", description="physical replication slot"
    )
    create_slot: bool = Field(True, description="create the slot when it is missing")
    application_name: str = Field(
        "pgkeep", pattern=r"^[a-z0-9_-]{1,63}$", description="name for synchronous_standby_names"
    )
    flush_seconds: float = Field(
        10, gt=0, le=3600, description="age at which received WAL is stored, segment full or not"
    )
    synchronous: bool = Field(
        False, description="store what arrives at once, so that commits may wait for it (RPO 0)"
    )
    behind_seconds: int = Field(
        900, ge=1, description="unprotected for longer than this counts as behind"
    )


class ClusterSettings(Section):
    """`[[cluster]]`: one PostgreSQL cluster to protect."""

    name: Cluster = Field(description="part of every path; never changes")
    dsn: SecretStr = Field(description="conninfo with a role that has REPLICATION")
    password_file: Path | None = Field(None, description="libpq password file, mode 0600")
    database: str = Field("postgres", description="database for facts and checks")
    standby: SecretStr | None = Field(
        None, description="conninfo of a standby to take backups from, to spare the primary"
    )
    standby_required: bool = Field(
        False, description="fail rather than read from `dsn` when the standby cannot be used"
    )
    schedule: Schedule = Field(default_factory=Schedule)
    incremental: Incremental = Field(default_factory=Incremental)
    tables: tuple[str, ...] = Field(
        (), description="[database.]schema.table whose rows are counted at backup and at drill"
    )
    validation_sql: Path | None = Field(None, description="statements a drill must pass")
    heartbeat: str | None = Field(
        None,
        description="[database.]schema.table with a timestamptz column `at` that something fills "
        "every few seconds; a drill measures lost time by it",
    )
    wal: ClusterWal = Field(default_factory=ClusterWal)


class Settings(Section):
    """The whole file. Sections that a verb does not need may be left out."""

    profile: Literal["development", "production"] = Field(
        "production", description="production refuses keys with a single recipient"
    )
    repository: Annotated[AzureRepository | DirectoryRepository, Field(discriminator="type")]
    queues: Queues | None = None
    catalogue: Catalogue | None = None
    keys: Keys = Field(default_factory=Keys)
    worker: Worker = Field(default_factory=Worker)
    wal: Wal = Field(default_factory=Wal)
    drill: Drill = Field(default_factory=Drill)
    cluster: tuple[ClusterSettings, ...] = ()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [cluster.name for cluster in self.cluster]
        if len(names) != len(set(names)):
            raise ValueError("two clusters have one name")
        return self

    def cluster_named(self, name: str) -> ClusterSettings:
        """Raises SettingsInvalid when the file has no such cluster."""
        for cluster in self.cluster:
            if cluster.name == name:
                return cluster
        known = ", ".join(cluster.name for cluster in self.cluster) or "none"
        raise SettingsInvalid(f"no cluster {name!r} in the settings (known: {known})")


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the file (argument, else PGKEEP_CONFIG), apply overrides, validate.

    Relative paths in the file are relative to the file. Raises SettingsInvalid naming file, line
    and key.
    """
    variables = os.environ if environment is None else environment
    if path is None and CONFIG_VARIABLE in variables:
        path = Path(variables[CONFIG_VARIABLE])
    text = "" if path is None else _read(path)
    values = _parse(text, path)
    _apply_overrides(values, variables)
    if path is not None:
        _anchor_paths(values, path.resolve().parent)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsInvalid(_describe(error, path, text)) from None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"cannot read {path}: {error}") from None


def _parse(text: str, path: Path | None) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid(f"{path}: {str(error).lower()}") from None


def _apply_overrides(values: dict[str, object], variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        # The Functions host's own variables share the prefix (PGKEEP_REPOSITORY__blobServiceUri).
        if name != name.upper():
            continue
        keys = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if not name.startswith(ENVIRONMENT_PREFIX) or keys[0] not in (*_SECTIONS, "profile"):
            continue
        target = values
        for key in keys[:-1]:
            inner = target.setdefault(key, {})
            if not isinstance(inner, dict):
                raise SettingsInvalid(f"{name}: {key} is not a section")
            target = inner
        target[keys[-1]] = value


_PATH_KEYS = {
    "path",
    "ca_file",
    "public_jwk",
    "password_file",
    "validation_sql",
    "scratch",
    "socket",
    "spool",
}


def _anchor_paths(value: object, base: Path) -> None:
    """Make the relative paths in the file relative to the file, whatever the working directory."""
    if isinstance(value, list):
        for item in value:
            _anchor_paths(item, base)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key in _PATH_KEYS and isinstance(inner, str):
            value[key] = str(base / inner)
        elif key == "program_directories" and isinstance(inner, list):
            value[key] = [str(base / str(item)) for item in inner]
        else:
            _anchor_paths(inner, base)


def _describe(error: ValidationError, path: Path | None, text: str) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    location = [
        part for part in first["loc"] if part not in ("azure", "directory", "pem", "key-vault")
    ]
    line = _line_of(text, location)
    message = first["msg"]
    if first["type"] == "union_tag_not_found":  # pydantic speaks of discriminators
        location, message = [*location, "type"], "is missing"
    key = ".".join(str(part) for part in location)
    where = f"{path or 'environment'}" + (f", line {line}" if line else "")
    return f"{where}: {key or 'settings'}: {message[:1].lower()}{message[1:]}"


def _line_of(text: str, location: list[int | str]) -> int | None:
    """Line of the deepest key of `location` that the file spells out, or None."""
    names = [str(part) for part in location if isinstance(part, str)]
    index = next((part for part in location if isinstance(part, int)), 0)
    lines = text.splitlines()
    start = found = 0
    for name in names:
        header = re.compile(rf"\s*\[\[?(?:[\w-]+\.)*{re.escape(name)}\]\]?")
        pattern = re.compile(
            rf"{header.pattern}|\s*{re.escape(name)}\s*=|.*[{{,]\s*{re.escape(name)}\s*="
        )
        hits = [number for number, line in enumerate(lines[start:], start) if pattern.match(line)]
        if not hits:
            break
        is_array = lines[hits[0]].lstrip().startswith("[[")
        start = hits[min(index, len(hits) - 1)] if is_array else hits[0]
        found = start + 1
    return found or None
