"""What is promised for a cluster: when backups run, how long they stay, how often they are tried.

The sections of `[policy]` are the defaults of every cluster; a named policy changes some of them,
and a cluster's own sections change what they name and nothing else.
"""

from typing import Literal

from pydantic import Field, SecretStr

from shared.domain.field_types import Cron, Label
from shared.settings.sections import Section


class Schedule(Section):
    """`[cluster.schedule]`: five-field cron in UTC; `0L` is a month's last Sunday, `6#1` its first
    Saturday. `false` switches a kind off.
    """

    full: Cron | Literal[False] = Field(
        "0 3 * * 0", description="full backups; false switches them off"
    )
    incremental: Cron | Literal[False] = Field(
        "0 2 * * *",
        description="incremental backups; where none can be taken (PostgreSQL 15 and 16, no WAL "
        "summaries) a full one is, and called so; false switches them off",
    )
    verify: Cron | Literal[False] = Field(
        "0 6 * * 6",
        description="read the newest backup's whole chain again, proved before or not; every new "
        "backup is verified anyway",
    )
    drill_quick: Cron | Literal[False] = Field(
        "30 3 * * 0", description="restore the newest verified backup and recover to the latest"
    )
    drill_extended: Cron | Literal[False] = Field(
        "0 2 * * 0L", description="restore an older backup, recover to a random instant"
    )
    drill_simulation: Cron | Literal[False] = Field(
        "0 2 * 1,4,7,10 6#1", description="the loss of the server: everything to the latest"
    )
    drill_disaster: Cron | Literal[False] = Field(
        "0 2 * 10 6#2",
        description="the loss of the region: as the simulation, read from the secondary where the "
        "repository has one",
    )
    expire: Cron | Literal[False] = Field(
        "30 6 * * *", description="delete what retention no longer wants"
    )
    maintenance: Cron | Literal[False] = Field(
        "15 3 * * 0", description="index maintenance; only where `[cluster.maintenance]` has a dsn"
    )
    audit: Cron | Literal[False] = Field(
        "0 7 1 1,4,7,10 *", description="write the signed audit report of the time since the last"
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


class Window(Section):
    """`[cluster.window]`: how long a kind of job may take before it is reported; none is killed."""

    full_minutes: int = Field(240, ge=1, description="a full backup")
    incremental_minutes: int = Field(120, ge=1, description="an incremental backup")
    drill_minutes: int = Field(240, ge=1, description="a drill")


class Maintenance(Section):
    """`[cluster.maintenance]`: rebuild invalid and bloated indexes, refresh statistics."""

    dsn: SecretStr | None = Field(
        None, description="conninfo of a role that may REINDEX and ANALYZE; none: no maintenance"
    )
    minutes: int = Field(45, ge=1, le=1440, description="begin nothing that would not end by then")
    bloat_ratio: float = Field(
        0.3, gt=0, lt=1, description="rebuild an index when so much of it is estimated to be empty"
    )
    least_bytes: int = Field(10 << 20, ge=0, description="leave smaller indexes alone")
    analyze: bool = Field(True, description="refresh statistics that are old")


class Retention(Section):
    """`[cluster.retention]`: what `expire` keeps. Only verified backups count, and what they need.

    A full backup is kept while it is young, is one of the last, is wanted by a rhythm, or is held.
    """

    full_days: float = Field(28, gt=0, description="full backups younger than this")
    incremental_days: float = Field(7, gt=0, description="incremental backups younger than this")
    wal_days: float = Field(
        28, gt=0, description="WAL to recover to any instant; older backups keep what they need"
    )
    keep_last: int = Field(2, ge=1, description="so many newest verified full backups, at any age")
    weekly: int = Field(0, ge=0, description="the first verified full backup of so many weeks")
    monthly: int = Field(0, ge=0, description="the first verified full backup of so many months")
    yearly: int = Field(0, ge=0, description="the first verified full backup of so many years")
    deletions_per_run: int = Field(20, ge=1, description="backups that one run may delete at most")
    litter_days: float = Field(
        8, ge=1, description="age at which what no document names is called litter"
    )
    settle_days: float = Field(
        3, ge=0, description="a policy that keeps less counts after so many days; 0: at once"
    )
    hold: tuple[Label, ...] = Field((), description="backups that are never deleted")


class Objectives(Section):
    """`[cluster.objectives]`: what is promised; a broken promise becomes a finding."""

    rpo_seconds: int = Field(300, ge=1, description="commits that a disaster may cost")
    rto_minutes: int = Field(240, ge=1, description="a full recovery, as drills measure it")
    committed_hours: float = Field(26, gt=0, description="age of the newest backup")
    verified_hours: float = Field(26, gt=0, description="age of the newest verified backup")
    proven_days: float = Field(8, gt=0, description="age of the newest passed drill")


class Replication(Section):
    """`[cluster.replication]`: copies in the second region; only where the repository has one."""

    behind_minutes: int = Field(15, ge=1, description="the secondary may lag so far")
    geo_safe_hours: float = Field(
        24, gt=0, description="time until a whole backup must be safe in the secondary"
    )


class Storage(Section):
    """`[cluster.storage]`: what a cluster's backups and WAL may take."""

    budget_bytes: int | None = Field(None, ge=1, description="none: only the fleet's budget holds")
    warn_ratio: float = Field(0.8, gt=0, le=1, description="share of a budget that is a finding")


class Policy(Section):
    """`[policy]` and `[policies.<name>]`: defaults for clusters; a cluster's own sections win."""

    schedule: Schedule = Field(default_factory=Schedule)
    incremental: Incremental = Field(default_factory=Incremental)
    wal: ClusterWal = Field(default_factory=ClusterWal)
    window: Window = Field(default_factory=Window)
    maintenance: Maintenance = Field(default_factory=Maintenance)
    retention: Retention = Field(default_factory=Retention)
    objectives: Objectives = Field(default_factory=Objectives)
    replication: Replication = Field(default_factory=Replication)
    storage: Storage = Field(default_factory=Storage)


POLICY_SECTIONS = frozenset(Policy.model_fields)
