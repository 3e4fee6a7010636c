"""Settings of both edges: one TOML file; docs/reference/settings.md is generated from here."""

from shared.settings.access import Access, EasyAuth, LocalTokens
from shared.settings.account import Account, ArmAccount, RecordedAccount
from shared.settings.cluster import (
    ClusterSettings,
    RestoreTarget,
)
from shared.settings.http import Http
from shared.settings.policy import (
    POLICY_SECTIONS,
    ClusterWal,
    Incremental,
    Maintenance,
    Objectives,
    Policy,
    Replication,
    Retention,
    Schedule,
    Storage,
    Window,
)
from shared.settings.root import (
    Settings,
)
from shared.settings.sections import (
    AnyKey,
    AzureRepository,
    Catalogue,
    Credential,
    DirectoryRepository,
    Drill,
    Fleet,
    Keys,
    KeyVaultKey,
    PemKey,
    PinnedKey,
    Queues,
    Section,
    Wal,
    Worker,
)
from shared.settings.toml_file import (
    CONFIG_VARIABLE,
    ENVIRONMENT_PREFIX,
    is_url,
    load,
)

__all__ = [
    "CONFIG_VARIABLE",
    "ENVIRONMENT_PREFIX",
    "POLICY_SECTIONS",
    "Access",
    "Account",
    "AnyKey",
    "ArmAccount",
    "AzureRepository",
    "Catalogue",
    "ClusterSettings",
    "ClusterWal",
    "Credential",
    "DirectoryRepository",
    "Drill",
    "EasyAuth",
    "Fleet",
    "Http",
    "Incremental",
    "KeyVaultKey",
    "Keys",
    "LocalTokens",
    "Maintenance",
    "Objectives",
    "PemKey",
    "PinnedKey",
    "Policy",
    "Queues",
    "RecordedAccount",
    "Replication",
    "RestoreTarget",
    "Retention",
    "Schedule",
    "Section",
    "Settings",
    "Storage",
    "Wal",
    "Window",
    "Worker",
    "is_url",
    "load",
]
