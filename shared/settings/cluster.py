"""`[[cluster]]` and `[[target]]`: what is protected, and where restores may go."""

import re
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from shared.domain.field_types import Cluster
from shared.settings.policy import Policy
from shared.settings.sections import Credential, Section


class ClusterSettings(Policy):
    """`[[cluster]]`: one PostgreSQL cluster to protect, with the policy that holds for it."""

    name: Cluster = Field(description="part of every path; never changes")
    policy: str | None = Field(None, description="a policy of `[policies]`; none: `[policy]` alone")
    dsn: SecretStr | None = Field(
        None, description="conninfo with a role that has REPLICATION; or a `service`"
    )
    service: str | None = Field(
        None, description="name of a connection service; its `service_file` says where to connect"
    )
    service_file: Path | None = Field(
        None, description="libpq connection service file; read where a connection is made"
    )
    entra: Credential | None = Field(
        None, description="log in with a token of this identity instead of a password"
    )
    password_file: Path | None = Field(None, description="libpq password file, mode 0600")
    database: str = Field("postgres", description="database for facts and checks")
    standby: SecretStr | None = Field(
        None, description="conninfo of a standby to take backups from, to spare the primary"
    )
    standby_required: bool = Field(
        False, description="fail rather than read from `dsn` when the standby cannot be used"
    )
    tables: tuple[str, ...] = Field(
        (), description="[database.]schema.table whose rows are counted at backup and at drill"
    )
    validation_sql: Path | None = Field(None, description="statements a drill must pass")
    heartbeat: str | None = Field(
        None,
        description="[database.]schema.table with a timestamptz column `at` that something fills "
        "every few seconds; a drill measures lost time by it",
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.dsn is None) == (self.service is None):
            raise ValueError("a cluster has either a dsn or a service")
        if (self.service is None) != (self.service_file is None):
            raise ValueError("service and service_file belong together")
        if self.entra is not None and self.password_file is not None:
            raise ValueError("a cluster logs in with entra or with a password_file")
        return self

    @property
    def place(self) -> str:
        """Where it runs, as far as settings tell, without any password: for limits per host."""
        if self.dsn is None:
            return f"service {self.service}"
        return host_of(self.dsn.get_secret_value()) or self.name


class RestoreTarget(Section):
    """`[[target]]`: a place on the container host that a restore asked for over HTTP may fill."""

    name: Cluster = Field(description="what requests call it")
    directory: Path = Field(description="restores go into new directories below this one")
    clusters: tuple[Cluster, ...] = Field((), description="whose backups may go there; none: all")
    owner: str | None = Field(None, description="account for the files, when pgkeep runs as root")


_HOST = re.compile(r"(?:^|\s)host(?:addr)?\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))")


def host_of(conninfo: str) -> str | None:
    """The host that a conninfo string or URI names; None when it names none."""
    if conninfo.startswith(("postgresql://", "postgres://")):
        return urlsplit(conninfo).hostname
    found = _HOST.search(conninfo)
    return found and (found[1] or found[2])
