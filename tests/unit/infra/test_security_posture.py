"""The deployment can be trusted with the only copy; and a template that could not is noticed."""

import re

import pytest

from tests.harness.deployed import INFRA, PROFILES, deployed, deployed_with
from tests.harness.security_posture import MIGHTY, faults, rights

STORAGE, ROLES, ASSIGNED = "backup-storage.bicep", "roles.bicep", "role-assignments.bicep"
APP, MAIN, VAULT = "function-app.bicep", "main.bicep", "key-vault.bicep"
MAINTAINS = "principals.maintenance, container: 'dump'"


@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_speaks_against_the_deployment(profile: str) -> None:
    assert faults(deployed(profile)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        (STORAGE, "allowSharedKeyAccess: false", "allowSharedKeyAccess: true", "allowSharedKey"),
        ("host-storage.bicep", "allowSharedKeyAccess: false", "", "allowSharedKeyAccess is None"),
        (STORAGE, "allowBlobPublicAccess: false", "allowBlobPublicAccess: true", "allowBlobPublic"),
        (STORAGE, "CrossTenantReplication: false", "CrossTenantReplication: true", "CrossTenant"),
        (STORAGE, "publicAccess: 'None'", "publicAccess: 'Blob'", "is public"),
        (STORAGE, "'TLS1_2'", "'TLS1_0'", "minimumTlsVersion"),
        (STORAGE, "supportsHttpsTrafficOnly: true", "supportsHttpsTrafficOnly: false", "Https"),
        (STORAGE, "requireInfrastructureEncryption: true", "", "requireInfrastructureEncryption"),
        (STORAGE, "isVersioningEnabled: true", "isVersioningEnabled: false", "isVersioningEnabled"),
        (STORAGE, " deleteRetentionPolicy:", " other:", " deleteRetentionPolicy.enabled"),
        (STORAGE, "containerDeleteRetentionPolicy:", "other:", "containerDeleteRetentionPolicy"),
        (MAIN, "full: fullDays + chainDays", "full: fullDays", "full is immutable for 28"),
        (MAIN, "evidence: evidenceDays", "other: evidenceDays", "evidence is immutable"),
        (MAIN, "evidence: evidenceDays", "state: 1\nevidence: evidenceDays", "leases change"),
        ("lifecycle.bicep", "chainDays + backstopDays", "chainDays - 20", "deletes"),
        ("lifecycle.bicep", "tierToCool", "tierToArchive", "archives"),
        ("lifecycle.bicep", "incremental: incremental", "evidence: incremental", "deletes keys"),
        (VAULT, "enablePurgeProtection: true", "", "enablePurgeProtection"),
        (VAULT, "enableRbacAuthorization: true", "", "enableRbacAuthorization"),
        (VAULT, "enableSoftDelete: true", "enableSoftDelete: false", "enableSoftDelete"),
        (VAULT, "softDeleteRetentionInDays: 90", "", "softDeleteRetentionInDays"),
        (VAULT, "keySize: rsaBits", "keySize: 2048", "is short"),
        (ROLES, "'${blobs}/add/action'", "'${blobs}/*'", "has the action"),
        (ROLES, "keys/sign/action", "keys/decrypt/action", "has the action"),
        (ROLES, "'${blobs}/delete'", "'${blobs}/deleteBlobVersion/action'", "has the action"),
        (ROLES, "blobServices/read", "listkeys/action", "has the action"),
        (ROLES, "'${blobs}/add/action'", "'${blobs}/write'", "writer may change"),
        (ROLES, "'${blobs}/add/action'", "'${blobs}/delete'", "control may change"),
        (ROLES, "'${blobs}/delete'", "'${blobs}/write'", "reaper may change"),
        (ASSIGNED, "key: 'manifest'", "key: 'wrap'", "writer may unwrap"),
        (ASSIGNED, "3913510d-42f4-4e42-8a64-420c390055eb", MIGHTY[1], "mighty"),
        (ASSIGNED, "principals.control, container: 'dump'", MAINTAINS, "maintenance has rights"),
        (ASSIGNED, "'full', role: roles.uploadBlobs", "'full', role: blobDataOwner", "built-in"),
        (APP, "httpsOnly: true", "httpsOnly: false", "httpsOnly"),
        (APP, "'Return401'", "'AllowAnonymous'", "unauthenticatedClientAction"),
        (APP, "platform: {", "platform: {}\nother: {", "platform.enabled"),
        (APP, "requireAuthentication: true", "", "requireAuthentication"),
        (APP, "'/api/health'", "'/api'", "excludedPaths"),
        (APP, "allowedOrigins: []", "allowedOrigins: ['*']", "cors"),
        (APP, "allow: false", "allow: true", "allow is True"),
        ("worker-job.bicep", "keyVaultUrl: connectionsUrl", "value: connectionsUrl", "secrets"),
        (
            "wal-receiver.bicep",
            "registries: [",
            "ingress: { external: true }\nregistries: [",
            "reached",
        ),
        ("registry.bicep", "anonymousPullEnabled: false", "", "anonymousPullEnabled"),
        ("registry.bicep", "adminUserEnabled: false", "adminUserEnabled: true", "adminUserEnabled"),
        ("monitoring.bicep", "DisableLocalAuth: true", "", "DisableLocalAuth"),
        ("catalogue.bicep", "passwordAuth: 'Disabled'", "passwordAuth: 'Enabled'", "passwordAuth"),
        (MAIN, "functionApp.outputs.url", "monitoring.outputs.connectionString", "secret"),
    ],
)
def test_t1_a_template_that_could_not_be_trusted_is_noticed(
    file: str, old: str, new: str, fault: str
) -> None:
    found = faults(deployed_with(file, old, new))
    assert any(fault in one for one in found), found


def test_t1_who_writes_can_neither_delete_nor_open_and_who_deletes_cannot_open() -> None:
    granted = rights(deployed())
    by_identity: dict[str, set[str]] = {}
    for (who, _), actions in granted.items():
        by_identity.setdefault(who, set()).update(actions)
    deleting = {who for who, all_of in by_identity.items() if any("/delete" in a for a in all_of)}
    opening = {who for (who, scope), a in granted.items() if scope.endswith("/wrap") and a}
    assert deleting == {"reaper"}
    assert opening == {"restore"}
    assert not any("vaults" in action for action in by_identity["control"])


def test_t20_the_deployed_key_takes_the_call_of_a_restore_by_hand() -> None:
    page = (INFRA.parent / "docs/how-to/emergency-restore.md").read_text("utf-8")
    [key] = [
        one for one in deployed().of("Microsoft.KeyVault/vaults/keys") if one.name.endswith("/wrap")
    ]
    taken = {operation.lower() for operation in key.get("properties.keyOps")}
    assert re.findall(r"<kek>/(\w+)\?", page) == ["unwrapkey"]
    assert "unwrapkey" in taken
    assert "decrypt" not in taken, "the page says that it is refused"
