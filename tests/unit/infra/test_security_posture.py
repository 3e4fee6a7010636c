"""The deployment can be trusted with the only copy; and a template that could not is noticed."""

import pytest

from tests.harness.deployed import PROFILES, deployed, deployed_with
from tests.harness.security_posture import MIGHTY, faults, rights

STORAGE, ROLES, ASSIGNED = "backup-storage.bicep", "roles.bicep", "role-assignments.bicep"
APP, MAIN = "function-app.bicep", "main.bicep"


@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_speaks_against_the_deployment(profile: str) -> None:
    assert faults(deployed(profile)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        (STORAGE, "allowSharedKeyAccess: false", "allowSharedKeyAccess: true", "allowSharedKey"),
        ("host-storage.bicep", "allowSharedKeyAccess: false", "", "allowSharedKeyAccess is None"),
        (STORAGE, "allowBlobPublicAccess: false", "allowBlobPublicAccess: true", "allowBlobPublic"),
        (STORAGE, "publicAccess: 'None'", "publicAccess: 'Blob'", "is public"),
        (STORAGE, "'TLS1_2'", "'TLS1_0'", "minimumTlsVersion"),
        (STORAGE, "supportsHttpsTrafficOnly: true", "supportsHttpsTrafficOnly: false", "Https"),
        (STORAGE, "requireInfrastructureEncryption: true", "", "requireInfrastructureEncryption"),
        (STORAGE, "isVersioningEnabled: true", "isVersioningEnabled: false", "isVersioningEnabled"),
        (MAIN, "full: fullDays + chainDays", "full: fullDays", "full is immutable for 28"),
        (MAIN, "evidence: evidenceDays", "other: evidenceDays", "evidence is immutable"),
        ("lifecycle.bicep", "chainDays + backstopDays", "chainDays - 20", "deletes"),
        ("lifecycle.bicep", "tierToCool", "tierToArchive", "archives"),
        ("lifecycle.bicep", "incremental: incremental", "evidence: incremental", "deletes keys"),
        ("key-vault.bicep", "enablePurgeProtection: true", "", "enablePurgeProtection"),
        ("key-vault.bicep", "enableRbacAuthorization: true", "", "enableRbacAuthorization"),
        (ROLES, "'${blobs}/add/action'", "'${blobs}/*'", "has the action"),
        (ROLES, "'${blobs}/add/action'", "'${blobs}/write'", "writer may change"),
        (ROLES, "'${blobs}/add/action'", "'${blobs}/delete'", "control may change"),
        (ASSIGNED, "key: 'manifest'", "key: 'wrap'", "writer may unwrap"),
        (ASSIGNED, "3913510d-42f4-4e42-8a64-420c390055eb", MIGHTY[1], "mighty"),
        (ASSIGNED, "'full', role: roles.uploadBlobs", "'full', role: blobDataOwner", "built-in"),
        (APP, "httpsOnly: true", "httpsOnly: false", "httpsOnly"),
        (APP, "'Return401'", "'AllowAnonymous'", "unauthenticatedClientAction"),
        (APP, "requireAuthentication: true", "", "requireAuthentication"),
        (APP, "'/api/health'", "'/api'", "excludedPaths"),
        (APP, "allowedOrigins: []", "allowedOrigins: ['*']", "cors"),
        (APP, "allow: false", "allow: true", "allow is True"),
        ("worker-job.bicep", "registries: [", "secrets: ['x']\nregistries: [", "secrets"),
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
