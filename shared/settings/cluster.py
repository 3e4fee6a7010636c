"""`[[cluster]]` and `[[target]]`: what is protected, and where restores may go."""

from pathlib import Path

from pydantic import Field, SecretStr

from shared.domain.field_types import Cluster
from shared.settings.policy import Policy
from shared.settings.sections import Section


class ClusterSettings(Policy):
    """`[[cluster]]`: one PostgreSQL cluster to protect, with the policy that holds for it."""

    name: Cluster = Field(description="part of every path; never changes")
    policy: str | None = Field(None, description="a policy of `[policies]`; none: `[policy]` alone")
    dsn: SecretStr = Field(description="conninfo with a role that has REPLICATION")
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


class RestoreTarget(Section):
    """`[[target]]`: a place on the container host that a restore asked for over HTTP may fill."""

    name: Cluster = Field(description="what requests call it")
    directory: Path = Field(description="restores go into new directories below this one")
    clusters: tuple[Cluster, ...] = Field((), description="whose backups may go there; none: all")
    owner: str | None = Field(None, description="account for the files, when pgkeep runs as root")
