"""docs/how-to/azure-permissions.md against the templates, and both against what the code writes."""

import inspect
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest

from shared.domain.account_guard import judge_account
from shared.domain.backup import BackupLabel
from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import FindingCode
from shared.domain.lifecycle_guard import Need, NeedKind, judge_lifecycle
from shared.domain.lifecycle_rules import ContainerPolicy, PolicySnapshot
from shared.repository import layout
from shared.repository.account_policies import GUARDED_CONTAINERS
from shared.repository.arm_payloads import ManagementPolicy
from shared.repository.blob_store import BlobName
from tests.harness.bicep_deployment import Deployment, Resource, deploy
from tests.harness.deployed import MAIN, NEEDED, PROFILES, deployed
from tests.harness.security_posture import (
    ACCOUNTS,
    ASSIGNMENTS,
    BLOBS,
    DEFINITIONS,
    backup_account,
    immutability_days,
    needed_days,
    rights,
)

PAGE: Final = Path(__file__).parents[3] / "docs/how-to/azure-permissions.md"
NOW: Final = datetime(2026, 11, 23, tzinfo=UTC)
# https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
BUILT_IN: Final[Mapping[str, str]] = {
    "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1": "Storage Blob Data Reader",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "Storage Blob Data Owner",
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "Storage Queue Data Contributor",
    "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a": "Storage Queue Data Message Sender",
    "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3": "Storage Table Data Contributor",
    "3913510d-42f4-4e42-8a64-420c390055eb": "Monitoring Metrics Publisher",
    "7f951dda-4ed3-4680-a7ca-43fe172d538d": "AcrPull",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
    "b86a8fe4-44ce-4948-aee5-eccb2c155cd7": "Key Vault Secrets Officer",
    "21090545-7ca7-4776-b22c-e363652d74d2": "Key Vault Reader",
}
# What the page calls them, by how their names begin.
PLACES: Final[Mapping[str, str]] = {
    "stbackup": "backup",
    "sthost": "host",
    "kv-": "vault",
    "appi-": "insights",
    "cr": "registry",
}
SHORT: Final[Mapping[str, str]] = {
    "blobs/": f"{BLOBS}/",
    "keys/": "Microsoft.KeyVault/vaults/keys/",
    "storageAccounts/": f"{ACCOUNTS}/",
}
ORDERS: Final = ClusterName("orders")
BACKUP: Final = layout.BackupRef(ORDERS, BackupLabel("20261122T030000Z-F-k3x7"))
PROOF: Final = layout.ProofPointer(BACKUP, NOW, "report")
SEALED: Final[Mapping[str, BlobName]] = {
    "cluster_document": layout.cluster_document(ORDERS),
    "key_record": layout.key_record(ORDERS, "k1"),
}
# What each identity adds to the evidence, by the function of layout.py that names it.
OWN: Final[Mapping[str, Mapping[str, BlobName]]] = {
    "writer": SEALED,
    "wal-writer": SEALED,
    "restore": {
        "verification_report": layout.verification_report(ORDERS, "1"),
        "proof_pointer": layout.proof_pointer(PROOF),
        "drill_report": layout.drill_report(ORDERS, "1"),
    },
    "reaper": {
        "tombstone": layout.tombstone(BACKUP, "1"),
        "expiry_report": layout.expiry_report(ORDERS, "1"),
    },
    "control": {"audit_event": layout.audit_event(1)},
}
# `pgkeep audit` is run by a person.
BY_PEOPLE: Final = frozenset({"audit_report"})


def rows(heading: str) -> Iterator[list[list[str]]]:
    """Of the table below it: the code spans of each cell."""
    _, _, below = PAGE.read_text("utf-8").partition(f"\n## {heading}\n")
    for line in below.partition("\n## ")[0].splitlines():
        if line.startswith("| `"):
            yield [re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")]


def role_name(deployment: Deployment, role: str) -> str:
    for one in deployment.of(DEFINITIONS):
        if one.id == role:
            name = re.fullmatch(r"pgkeep-test (.+) \(\w+\)", one.get("properties.roleName"))
            assert name is not None
            return name[1]
    return BUILT_IN[role.rpartition("/")[2]]


def identity(one: Resource) -> str:
    name = str(one.get("properties.principalId")).partition(".")[0]
    return "event topic" if name.startswith("evgt-") else name.removeprefix("id-pgkeep-test-")


def place(scope: Resource) -> str:
    owner, _, inner = scope.name.partition("/")
    [own] = [called for begin, called in PLACES.items() if owner.startswith(begin)]
    return "/".join([own, *inner.removeprefix("default/").split("/")]).rstrip("/")


def conditions(deployment: Deployment) -> dict[tuple[str, str], str]:
    return {
        (identity(one), place(one.get("scope"))): one.get("properties.condition")
        for one in deployment.of(ASSIGNMENTS)
        if one.get("properties.condition")
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_t1_the_page_names_every_right_that_is_given_and_no_other(profile: str) -> None:
    granted = [
        (identity(one), place(one.get("scope")), role_name(deployed(profile), role))
        for one in deployed(profile).of(ASSIGNMENTS)
        for role in [one.get("properties.roleDefinitionId")]
    ]
    told = [
        right
        for who, where, [role], _ in rows("Who may do what")
        for right in product(who, where, [role])
    ]
    assert sorted(told) == sorted(granted)


def test_the_page_names_every_action_of_the_roles_that_are_ours() -> None:
    told = {
        role: {SHORT[short] + rest for one in actions for short, rest in [_cut(one)]}
        for [role], actions, *_ in rows("The roles that are ours")
    }
    assert told == {
        role_name(deployed(), one.id): {*permission["actions"], *permission["dataActions"]}
        for one in deployed().of(DEFINITIONS)
        for permission in one.get("properties.permissions")
    }


def _cut(action: str) -> tuple[str, str]:
    short, slash, rest = action.partition("/")
    return short + slash, rest


def test_t1_in_the_evidence_each_takes_only_names_that_are_its_own() -> None:
    told = {who: paths for whom, paths in rows("Conditions") for who in whom}
    found = conditions(deployed())
    for who, own in OWN.items():
        condition = found[who, "backup/evidence"]
        assert f"!(ActionMatches{{'{BLOBS}/add/action'}})) OR " in condition
        patterns = re.findall(r"blobs:path\] StringLike '([^']+)'", condition)
        assert patterns == told[who]
        matching = re.compile("|".join(map(_like, patterns)))
        assert all(matching.fullmatch(name.path) for name in own.values())
        others = {name for names in OWN.values() for name in names.values()} - {*own.values()}
        assert not any(matching.fullmatch(name.path) for name in others)


def test_every_kind_of_evidence_has_somebody_who_may_add_it() -> None:
    kinds = {
        name
        for name, one in vars(layout).items()
        if inspect.isfunction(one) and "BlobName(EVIDENCE," in inspect.getsource(one)
    }
    assert {kind for own in OWN.values() for kind in own} == kinds - BY_PEOPLE


def _like(pattern: str) -> str:
    """https://learn.microsoft.com/azure/role-based-access-control/conditions-format: StringLike."""
    return ".*".join(map(re.escape, pattern.split("*")))


def test_t5_a_taken_over_function_app_cannot_say_to_whom_backups_are_sealed() -> None:
    condition = conditions(deployed())["control", "host"]
    for change in ("write", "add/action", "delete", "move/action"):
        assert f"!(ActionMatches{{'{BLOBS}/{change}'}})" in condition
    assert condition.endswith("containers:name] StringNotEquals 'settings'))")
    writing = {"b7e6dc6d-f1e8-4753-8033-0f276bb0955b", "ba92f5b4-2d11-453d-a403-e96b0029c9fe"}
    may = {who for (who, scope), roles in rights(deployed()).items() if roles & writing}
    assert may == {"control", "person", "evgt-pgkeep-test"}


def test_where_storage_wants_it_only_the_writer_writes_and_only_backups() -> None:
    deployment = deploy(MAIN, {**NEEDED, "blocksNeedWrite": True})
    writing = {
        (who, scope.rpartition("/")[2])
        for (who, scope), actions in rights(deployment).items()
        if f"{BLOBS}/write" in actions and not scope.endswith(f"/{layout.STATE}")
    }
    assert writing == {("writer", "full"), ("writer", "incremental")}


def test_a_deployment_leaves_locked_policies_alone() -> None:
    """Azure refuses whatever would write one, and with it the whole deployment."""
    locked = deploy(MAIN, {**NEEDED, "immutabilityLocked": True})
    assert immutability_days(deployed()) != {}
    assert immutability_days(locked) == {}
    containers = f"{ACCOUNTS}/blobServices/containers"
    assert len(locked.of(containers)) == len(deployed().of(containers))


def snapshot(deployment: Deployment, *, locked: bool) -> PolicySnapshot:
    [policy] = deployment.of(f"{ACCOUNTS}/managementPolicies")
    found = ManagementPolicy.model_validate({"properties": policy.get("properties")})
    containers = {
        name: ContainerPolicy(days, locked=locked)
        for name, days in immutability_days(deployment).items()
    }
    return PolicySnapshot(found.rules(), containers)


@pytest.mark.parametrize("profile", PROFILES)
def test_until_the_policies_are_locked_our_guard_tells_that_and_nothing_else(profile: str) -> None:
    wanted = {name: needed_days()[name] for name in GUARDED_CONTAINERS}
    fresh = snapshot(deployed(profile), locked=False)
    told = [(one.code, one.object) for one in judge_account(fresh, wanted, NOW, locked=True)]
    assert told == [(FindingCode.POLICY_MISSING, name) for name in sorted(GUARDED_CONTAINERS)]
    needs = [
        Need(NeedKind.BACKUP, f"{name}/orders/", NOW, NOW + timedelta(days=days))
        for name, days in wanted.items()
    ]
    keys = Need(NeedKind.KEYS, f"{layout.EVIDENCE}/orders/keys/", NOW, None)
    assert judge_lifecycle(fresh, [*needs, keys], [], NOW) == ()
    assert judge_account(snapshot(deployed(profile), locked=True), wanted, NOW, locked=True) == ()


def test_a_key_of_our_own_encrypts_the_account_and_storage_alone_may_use_it() -> None:
    assert backup_account(deployed()).get("properties.encryption.keySource") == "Microsoft.Storage"
    deployment = deploy(MAIN, {**NEEDED, "ownStorageKey": True})
    encryption: dict[str, Any] = backup_account(deployment).get("properties.encryption")
    assert encryption["keySource"] == "Microsoft.Keyvault"
    assert encryption["keyvaultproperties"]["keyname"] == "storage"
    assert encryption["requireInfrastructureEncryption"] is True
    users = {who for who, scope in rights(deployment) if scope.endswith("/storage")}
    assert users == {"storage"}
    [name] = backup_account(deployment).get("identity.userAssignedIdentities")
    assert name == encryption["identity"]["userAssignedIdentity"]
