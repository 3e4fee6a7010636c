"""What both sources of account policies promise: a recording, and Resource Manager over HTTP."""

import json
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError

from shared.azure_storage.patience import RetryBudget
from shared.domain.lifecycle_rules import (
    AccountProtection,
    AgeCondition,
    ContainerPolicy,
    LifecycleAction,
    LifecycleRule,
    PolicySnapshot,
)
from shared.repository.account_policies import (
    AccountPolicies,
    AccountPoliciesDenied,
    AccountPoliciesUnavailable,
    PolicyReader,
    read_snapshot,
)
from shared.repository.arm_account_policies import ArmAccountPolicies, open_account_policies
from shared.repository.recorded_account_policies import RecordedAccountPolicies
from tests.harness.arm_server import (
    ACCOUNT,
    ResourceManager,
    TestCredential,
    running_resource_manager,
)
from tests.harness.fixed_clock import FixedClock

RECORDING = Path(__file__).parents[1] / "recorded" / "account-policies.json"
QUICK = RetryBudget(total_s=2, first_pause_s=0.01, longest_pause_s=0.02)
EMPTY: dict[str, Any] = {
    "managementPolicy": None,
    "blobService": {"properties": {"isVersioningEnabled": None, "deleteRetentionPolicy": None}},
    "containers": [{"name": "full", "properties": {}}],
}

Source = Callable[[dict[str, Any]], AccountPolicies]


@pytest.fixture(scope="module")
def server() -> Iterator[ResourceManager]:
    with running_resource_manager() as running:
        yield running


@pytest.fixture
def manager(server: ResourceManager) -> ResourceManager:
    server.recording = json.loads(RECORDING.read_text("utf-8"))
    server.refusals.clear()
    server.requests.clear()
    return server


@pytest.fixture
def arm(manager: ResourceManager) -> Iterator[ArmAccountPolicies]:
    policies = open_account_policies(ACCOUNT, TestCredential(), endpoint=manager.url, retry=QUICK)
    yield policies
    policies.close()


@pytest.fixture(params=["recorded", "arm"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    def recorded(recording: dict[str, Any]) -> AccountPolicies:
        path = tmp_path / "policies.json"
        path.write_text(json.dumps(recording), "utf-8")
        return RecordedAccountPolicies(path)

    def asked(recording: dict[str, Any]) -> AccountPolicies:
        policies: ArmAccountPolicies = request.getfixturevalue("arm")
        request.getfixturevalue("manager").recording = recording
        return policies

    return recorded if request.param == "recorded" else asked


def test_the_documented_answers_read_as_the_policies_they_are(source: Source) -> None:
    snapshot = read_snapshot(source(json.loads(RECORDING.read_text("utf-8"))))

    age_out, tagged, versions = snapshot.rules
    assert age_out == LifecycleRule(
        name="age-out",
        actions={
            LifecycleAction.COOL: AgeCondition(modification=30),
            LifecycleAction.COLD: AgeCondition(creation=60),
            LifecycleAction.ARCHIVE: AgeCondition(modification=90, tier_change=7),
            LifecycleAction.DELETE: AgeCondition(last_access=1000.5),
        },
        prefixes=("full/", "wal"),
    )
    assert (tagged.enabled, tagged.prefixes, tagged.tags) == (False, (), (("keep", "no"),))
    assert (versions.enabled, versions.actions) == (True, {})
    assert snapshot.containers == {
        "full": ContainerPolicy(35, locked=True, legal_holds=("case42",), protected_append=True),
        "incremental": ContainerPolicy(7, version_level=True),
        "wal": ContainerPolicy(),  # what is left of a policy that was withdrawn
        "evidence": ContainerPolicy(),  # a container that is not there
    }
    assert snapshot.protection == AccountProtection(
        versioning=True, soft_delete_days=30, access_tracked=True
    )


def test_an_account_without_any_policy_has_no_rules_and_nothing_is_kept(source: Source) -> None:
    assert read_snapshot(source(EMPTY)) == PolicySnapshot(
        containers=dict.fromkeys(("full", "incremental", "wal", "evidence"), ContainerPolicy())
    )


@pytest.mark.parametrize(
    "hurt",
    [
        {"managementPolicy": {"properties": {"policy": {"rules": [{"name": "no-definition"}]}}}},
        {"managementPolicy": {"properties": {"policy": "none"}}},
        {"blobService": {"properties": []}},
        {"containers": [{"name": "full", "properties": {"legalHold": "yes"}}]},
    ],
)
def test_an_answer_of_another_shape_is_no_policy(source: Source, hurt: dict[str, Any]) -> None:
    with pytest.raises(AccountPoliciesUnavailable):
        read_snapshot(source({**EMPTY, **hurt}))


class TestRecording:
    @pytest.mark.parametrize("content", [None, "", "[]", '{"colour": 1}'])
    def test_a_file_that_is_missing_or_something_else_is_told_with_its_name(
        self, tmp_path: Path, content: str | None
    ) -> None:
        path = tmp_path / "policies.json"
        if content is not None:
            path.write_text(content, "utf-8")
        with pytest.raises(AccountPoliciesUnavailable, match=str(path)):
            RecordedAccountPolicies(path).lifecycle_rules()


class TestResourceManager:
    def test_the_token_is_asked_for_the_cloud_that_the_endpoint_is_of(
        self, manager: ResourceManager
    ) -> None:
        credential = TestCredential()
        policies = open_account_policies(ACCOUNT, credential, endpoint=manager.url, retry=QUICK)
        policies.protection()
        policies.close()
        assert credential.scopes == [f"{manager.url}/.default"]

    @pytest.mark.parametrize(
        ("status", "code"), [(403, "AuthorizationFailed"), (401, "InvalidAuthenticationToken")]
    )
    def test_a_refusal_names_the_resource_and_is_no_missing_policy(
        self, arm: ArmAccountPolicies, manager: ResourceManager, status: int, code: str
    ) -> None:
        manager.refuse(status, code)
        with pytest.raises(AccountPoliciesDenied, match=f"managementPolicies.*{status} {code}"):
            arm.lifecycle_rules()

    @pytest.mark.parametrize("code", ["ResourceNotFound", "ResourceGroupNotFound", ""])
    def test_an_account_that_is_not_there_is_not_an_account_without_policy(
        self, arm: ArmAccountPolicies, manager: ResourceManager, code: str
    ) -> None:
        manager.refuse(404, code)
        with pytest.raises(AccountPoliciesUnavailable) as refused:
            arm.lifecycle_rules()
        assert "[account]" in refused.value.advice

    def test_a_throttled_request_is_repeated(
        self, arm: ArmAccountPolicies, manager: ResourceManager
    ) -> None:
        manager.refuse(429, "TooManyRequests", **{"Retry-After": "0"})
        manager.refuse(503, "ServerTimeout")
        assert len(arm.lifecycle_rules()) == 3
        assert len(manager.requests) == 3

    def test_one_that_shall_wait_longer_than_a_guard_may_is_given_up_at_once(
        self, arm: ArmAccountPolicies, manager: ResourceManager
    ) -> None:
        manager.refuse(429, "TooManyRequests", **{"Retry-After": "300"})
        with pytest.raises(AccountPoliciesUnavailable, match="429 TooManyRequests"):
            arm.lifecycle_rules()
        assert len(manager.requests) == 1

    def test_an_endpoint_that_does_not_answer_is_unavailable(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        policies = open_account_policies(
            ACCOUNT,
            TestCredential(),
            endpoint=f"http://127.0.0.1:{port}",
            retry=RetryBudget(total_s=0),
        )
        with pytest.raises(AccountPoliciesUnavailable, match="managementPolicies"):
            policies.lifecycle_rules()
        policies.close()

    def test_an_identity_without_a_token_is_denied(self, manager: ResourceManager) -> None:
        class NoIdentity(TestCredential):
            def get_token(self, *scopes: str, **_: Any) -> Any:
                raise ClientAuthenticationError(f"nobody signs for {scopes[0]}\nsecond line")

        policies = open_account_policies(ACCOUNT, NoIdentity(), endpoint=manager.url, retry=QUICK)
        with pytest.raises(AccountPoliciesDenied, match=r"nobody signs for \S+$"):
            policies.lifecycle_rules()
        policies.close()

    def test_a_token_never_goes_over_plain_http_to_another_machine(self) -> None:
        policies = open_account_policies(
            ACCOUNT, TestCredential(), endpoint="http://192.0.2.1", retry=RetryBudget(total_s=0)
        )
        with pytest.raises(AccountPoliciesUnavailable, match="TLS"):
            policies.lifecycle_rules()
        policies.close()


def test_policies_that_were_read_lately_are_not_asked_for_again(
    arm: ArmAccountPolicies, manager: ResourceManager, fixed_clock: FixedClock
) -> None:
    reader = PolicyReader(arm, fixed_clock, fresh_for=timedelta(minutes=5))
    first = reader.read()
    asked = len(manager.requests)
    for _ in range(1000):
        assert reader.read() is first
    assert len(manager.requests) == asked == 6

    fixed_clock.advance(timedelta(minutes=5))
    assert reader.read() == first
    assert len(manager.requests) == 12


def test_a_reading_that_failed_is_tried_anew(
    arm: ArmAccountPolicies, manager: ResourceManager, fixed_clock: FixedClock
) -> None:
    reader = PolicyReader(arm, fixed_clock, fresh_for=timedelta(minutes=5))
    manager.refuse(403, "AuthorizationFailed")
    with pytest.raises(AccountPoliciesDenied):
        reader.read()
    assert len(reader.read().rules) == 3
