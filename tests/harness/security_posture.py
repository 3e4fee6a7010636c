"""What must hold for a deployment to be trusted with the only copy: each fault is a sentence."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.repository import layout
from shared.settings import Incremental, Retention
from tests.harness.bicep_deployment import Deployment, Resource

ACCOUNTS: Final = "Microsoft.Storage/storageAccounts"
BLOBS: Final = f"{ACCOUNTS}/blobServices/containers/blobs"
ASSIGNMENTS: Final = "Microsoft.Authorization/roleAssignments"
DEFINITIONS: Final = "Microsoft.Authorization/roleDefinitions"
# A weekly full backup and the incrementals on it (Schedule's defaults); the limit is their number.
CHAIN_DAYS: Final = 7
# https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
MIGHTY: Final = (
    "8e3af657-a8ff-443c-a75c-2fe8c4bcb635",  # Owner
    "b24988ac-6180-42a0-ab88-20f7382dd24c",  # Contributor
    "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9",  # User Access Administrator
    "f58310d9-a9f6-439a-9e8d-f62e7b41a168",  # Role Based Access Control Administrator
    "17d1049b-9a84-46fb-8f53-869881c3d3ab",  # Storage Account Contributor
    "81a9662b-bebf-436f-a333-f67b29880f12",  # Storage Account Key Operator
    "00482a5a-887f-4fb3-b363-3b7fe8e74483",  # Key Vault Administrator
    "f25e0fa2-a7c8-4377-a976-54943a77a395",  # Key Vault Contributor
    "14b46e9e-c2b7-41b4-b07b-48a6ebf60603",  # Key Vault Crypto Officer
    "12338af0-0e69-4776-bea7-57ae8d297424",  # Key Vault Crypto User
)
# Every other action stays out of our roles: some delete for good, open by `decrypt`, or list keys.
_ACTIONS: Final = {
    f"{BLOBS}/read",
    f"{BLOBS}/add/action",
    f"{BLOBS}/write",
    f"{BLOBS}/delete",
    f"{ACCOUNTS}/managementPolicies/read",
    f"{ACCOUNTS}/blobServices/read",
    f"{ACCOUNTS}/blobServices/containers/read",
    "Microsoft.KeyVault/vaults/keys/read",
    "Microsoft.KeyVault/vaults/keys/sign/action",
    "Microsoft.KeyVault/vaults/keys/unwrap/action",
}
_EVERY_ACCOUNT: Final = {
    "allowSharedKeyAccess": False,
    "allowBlobPublicAccess": False,
    "allowCrossTenantReplication": False,
    "supportsHttpsTrafficOnly": True,
    "minimumTlsVersion": "TLS1_2",
}
_VAULT: Final = {
    "enableRbacAuthorization": True,
    "enableSoftDelete": True,
    "enablePurgeProtection": True,
    "softDeleteRetentionInDays": 90,
}
_SECRET_WORDS: Final = ("listkeys", "password", "secret", "sas", "connectionstring", "systemkeys")


def faults(deployment: Deployment) -> list[str]:
    """Empty when the deployment can be trusted."""
    checks = (_accounts, _backups, _lifecycle, _vault, _roles, _assignments, _app, _jobs, _outputs)
    return [fault for check in checks for fault in check(deployment)]


def backup_account(deployment: Deployment) -> Resource:
    [found] = [one for one in deployment.of(ACCOUNTS) if one.module == "backup-storage.bicep"]
    return found


def immutability_days(deployment: Deployment) -> dict[str, int]:
    """By container of the account with the backups."""
    policies = deployment.of(f"{ACCOUNTS}/blobServices/containers/immutabilityPolicies")
    return {
        one.name.split("/")[2]: one.get("properties.immutabilityPeriodSinceCreationInDays")
        for one in policies
    }


def needed_days() -> dict[str, float]:
    """By container: retention by default, and the longest chain on top of it."""
    kept = Retention()
    assert Incremental().chain_limit <= CHAIN_DAYS
    return {
        "full": kept.full_days + CHAIN_DAYS,
        "incremental": kept.incremental_days + CHAIN_DAYS,
        layout.WAL: kept.wal_days + CHAIN_DAYS,
        "dump": kept.full_days + CHAIN_DAYS,
        layout.EVIDENCE: kept.full_days + CHAIN_DAYS,
    }


def rights(deployment: Deployment) -> dict[tuple[str, str], set[str]]:
    """Actions of custom roles, or ids of built-in ones, by identity and scope's name."""
    actions = {
        one.id: {*permission["actions"], *permission["dataActions"]}
        for one in deployment.of(DEFINITIONS)
        for permission in one.get("properties.permissions")
    }
    found: dict[tuple[str, str], set[str]] = {}
    for one in deployment.of(ASSIGNMENTS):
        who, role = one.get("properties.principalId"), one.get("properties.roleDefinitionId")
        scope = one.get("scope")
        assert isinstance(scope, Resource)
        granted = actions.get(role, {role.rpartition("/")[2]})
        found.setdefault((_identity(who), scope.name), set()).update(granted)
    return found


def _identity(principal: str) -> str:
    """`writer` of `id-pgkeep-test-writer.properties.principalId`."""
    name = principal.partition(".")[0]
    return name.removeprefix("id-pgkeep-test-")


def _differing(one: Resource, wanted: Mapping[str, object]) -> Iterator[str]:
    for key, value in wanted.items():
        if one.get(f"properties.{key}") != value:
            yield f"{one.name}: {key} is {one.get(f'properties.{key}')!r}, not {value!r}"


def _accounts(deployment: Deployment) -> Iterator[str]:
    for account in deployment.of(ACCOUNTS):
        yield from _differing(account, _EVERY_ACCOUNT)
    for container in deployment.of(f"{ACCOUNTS}/blobServices/containers"):
        if container.get("properties.publicAccess") != "None":
            yield f"container {container.name} is public"


def _backups(deployment: Deployment) -> Iterator[str]:
    account = backup_account(deployment)
    yield from _differing(account, {"encryption.requireInfrastructureEncryption": True})
    for service in deployment.of(f"{ACCOUNTS}/blobServices"):
        if service.name.startswith(f"{account.name}/"):
            wanted = {
                "isVersioningEnabled": True,
                "deleteRetentionPolicy.enabled": True,
                "containerDeleteRetentionPolicy.enabled": True,
            }
            yield from _differing(service, wanted)
    immutable = immutability_days(deployment)
    for container, days in needed_days().items():
        if immutable.get(container, 0) < days:
            yield f"container {container} is immutable for {immutable.get(container)} days"
    if layout.STATE in immutable:
        yield f"container {layout.STATE} is immutable, and leases change"


def _lifecycle(deployment: Deployment) -> Iterator[str]:
    [policy] = deployment.of(f"{ACCOUNTS}/managementPolicies")
    for rule in policy.get("properties.policy")["rules"]:
        actions = rule["definition"]["actions"].get("baseBlob", {})
        if "tierToArchive" in actions:
            yield f"rule {rule['name']} archives"
        if "delete" in actions:
            yield from _deletion(rule, actions["delete"]["daysAfterModificationGreaterThan"])


def _deletion(rule: dict[str, Any], days: int) -> Iterator[str]:
    prefixes = rule["definition"]["filters"].get("prefixMatch") or [""]
    for prefix in prefixes:
        container = prefix.partition("/")[0]
        if container in {"", layout.EVIDENCE}:
            yield f"rule {rule['name']} deletes keys"
        elif days < needed_days()[container]:
            yield f"rule {rule['name']} deletes {container} after {days} days"


def _vault(deployment: Deployment) -> Iterator[str]:
    yield from _differing(deployment.one("Microsoft.KeyVault/vaults"), _VAULT)
    for key in deployment.of("Microsoft.KeyVault/vaults/keys"):
        if key.get("properties.keySize", 3072) < 3072:
            yield f"key {key.name} is short"


def _roles(deployment: Deployment) -> Iterator[str]:
    for role in deployment.of(DEFINITIONS):
        for permission in role.get("properties.permissions"):
            for action in [*permission["actions"], *permission["dataActions"]]:
                if action not in _ACTIONS:
                    yield f"role {role.get('properties.roleName')} has the action {action}"


def _assignments(deployment: Deployment) -> Iterator[str]:
    for (who, scope), actions in rights(deployment).items():
        if actions & set(MIGHTY):
            yield f"{who} has a mighty role on {scope}"
        changing = {action for action in actions if action.endswith(("/write", "/delete"))}
        allowed = _changes(who, scope)
        if changing - allowed:
            yield f"{who} may change {scope}: {', '.join(sorted(changing - allowed))}"
        unwraps = any(action.endswith("/unwrap/action") for action in actions)
        if unwraps and who != "restore" and not scope.endswith("/manifest"):
            yield f"{who} may unwrap with {scope}"
        if who == "maintenance" and _holds_backups(deployment, scope):
            yield f"{who} has rights on {scope}"
        if _is_builtin(actions) and _holds_backups(deployment, scope):
            yield f"{who} has built-in rights on {scope}"


def _changes(who: str, scope: str) -> set[str]:
    """Leases are rewritten; of the rest the reaper deletes, and nobody overwrites."""
    if scope.endswith(f"/{layout.STATE}"):
        return {f"{BLOBS}/write"}
    return {f"{BLOBS}/delete"} if who == "reaper" else set()


def _is_builtin(actions: set[str]) -> bool:
    return not any("/" in action for action in actions)


def _holds_backups(deployment: Deployment, scope: str) -> bool:
    """Of the account: itself, and what is neither the queue nor the container of lost events."""
    others = ("webjobs-blobtrigger-poison", "eventgrid-dead-letter")
    return scope.startswith(backup_account(deployment).name) and not scope.endswith(others)


def _app(deployment: Deployment) -> Iterator[str]:
    app = deployment.one("Microsoft.Web/sites")
    wanted = {"httpsOnly": True, "siteConfig.cors.allowedOrigins": []}
    yield from _differing(app, wanted)
    for policy in deployment.of("Microsoft.Web/sites/basicPublishingCredentialsPolicies"):
        yield from _differing(policy, {"allow": False})
    [authentication] = [
        one
        for one in deployment.of("Microsoft.Web/sites/config")
        if one.name.endswith("/authsettingsV2")
    ]
    yield from _differing(
        authentication,
        {
            "platform.enabled": True,
            "globalValidation.requireAuthentication": True,
            "globalValidation.unauthenticatedClientAction": "Return401",
            "globalValidation.excludedPaths": ["/api/health", "/runtime/webhooks/blobs"],
        },
    )


def _jobs(deployment: Deployment) -> Iterator[str]:
    for one in [
        *deployment.of("Microsoft.App/jobs"),
        *deployment.of("Microsoft.App/containerApps"),
    ]:
        configuration = one.get("properties.configuration")
        for secret in configuration.get("secrets", []):
            if not secret.get("keyVaultUrl") or "value" in secret:
                yield f"{one.name} has secrets of its own"
        if configuration.get("ingress"):
            yield f"{one.name} can be reached"
    for registry in deployment.of("Microsoft.ContainerRegistry/registries"):
        yield from _differing(registry, {"adminUserEnabled": False, "anonymousPullEnabled": False})
    insights = deployment.one("Microsoft.Insights/components")
    yield from _differing(insights, {"DisableLocalAuth": True})
    for server in deployment.of("Microsoft.DBforPostgreSQL/flexibleServers"):
        yield from _differing(server, {"authConfig.passwordAuth": "Disabled"})


def _outputs(deployment: Deployment) -> Iterator[str]:
    for name, value in deployment.outputs.items():
        if any(word in f"{name} {value}".lower() for word in _SECRET_WORDS):
            yield f"output {name} may hold a secret"
