"""Sections that hold for a whole process: storage, queues, keys, how hard to work."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)


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
    secondary_url: str | None = Field(
        None,
        description="blob endpoint of the readable copy in the second region (RA-GRS, RA-GZRS); "
        "`auto` is https://<account>-secondary.blob.core.windows.net; none: there is none",
    )
    replication_record: Path | None = Field(
        None,
        description="JSON file that says how far replication is, instead of the secondary itself: "
        "for emulators",
    )

    @field_validator("secondary_url")
    @classmethod
    def _derived(cls, value: str | None, info: ValidationInfo) -> str | None:
        account_url = info.data.get("account_url")
        return _secondary_of(account_url) if value == "auto" and account_url else value


def _secondary_of(account_url: str) -> str:
    """Azure has the account first in the host's name, the emulator in the path."""
    parts = urlsplit(account_url)
    if account := parts.path.strip("/"):
        return parts._replace(path=f"/{account}-secondary").geturl()
    account, _, rest = parts.netloc.partition(".")
    return parts._replace(netloc=f"{account}-secondary.{rest}", path="").geturl()


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
    entra: Credential | None = Field(
        None, description="log in with a token of this identity instead of a password"
    )


Keyed = TypeVar("Keyed", bound=Section)


def _with_one_source(key: Keyed, path: Path | None, pem: str | None) -> Keyed:
    if (path is None) == (pem is None):
        raise ValueError("a key has either a path or a pem")
    return key


def _public(text: str) -> str:
    if "PRIVATE" in text:
        raise ValueError("a private key does not belong into the settings")
    return text


PublicPem = Annotated[str, AfterValidator(_public)]


class PemKey(Section):
    """A key in PEM: in a file of its own, or its public half in the settings themselves."""

    type: Literal["pem"] = "pem"
    path: Path | None = Field(None, description="PEM file; mode 0600 when it holds a private key")
    pem: PublicPem | None = Field(None, description="the public half itself, instead of a path")
    passphrase: SecretStr | None = Field(None, description="of an encrypted private key")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        return _with_one_source(self, self.path, self.pem)


class KeyVaultKey(Section):
    """A key in Azure Key Vault. Wrapping needs only the public half, and no call."""

    type: Literal["key-vault"]
    key_id: str = Field(description="full id with version, https://<vault>/keys/<name>/<version>")
    public_jwk: Path | None = Field(None, description="file with the public half as JWK, to wrap")
    pem: PublicPem | None = Field(None, description="the public half as PEM, instead of a file")
    credential: Credential = Field(default_factory=Credential)


AnyKey = Annotated[PemKey | KeyVaultKey, Field(discriminator="type")]


class PinnedKey(Section):
    """A key whose signatures are believed. Never read from the repository itself."""

    path: Path | None = Field(None, description="file with a public key, PEM: Ed25519 or EC P-256")
    pem: PublicPem | None = Field(None, description="the key itself, instead of a path")
    key_id: str | None = Field(None, description="defaults to the key's fingerprint")
    revoked_after: AwareDatetime | None = Field(
        None, description="documents created later are refused"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        return _with_one_source(self, self.path, self.pem)


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


class Fleet(Section):
    """`[fleet]`: what holds for all clusters together."""

    spread_minutes: int = Field(
        0,
        ge=0,
        le=720,
        description="serve each cluster's ticks up to this much later, always by "
        "the same, so that a fleet with one schedule does not start at once",
    )
    per_host: int = Field(1, ge=1, description="jobs at once that read from one PostgreSQL host")
    per_account: int = Field(
        16, ge=1, description="jobs at once that read from or write to the repository"
    )
    budget_bytes: int | None = Field(
        None, ge=1, description="what the whole repository may hold; none: no limit"
    )
