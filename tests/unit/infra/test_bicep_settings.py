"""What the deployment says and what the code asks for are the same: settings, queues, identities,
containers, and what our own guard thinks of the account.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from shared.domain.account_guard import judge_account
from shared.domain.lifecycle_guard import Need, NeedKind, what_would_go
from shared.jobs.messages import JOB_QUEUES, QUEUES
from shared.repository import layout
from shared.repository.account_policies import PolicyReader
from shared.repository.recorded_account_policies import RecordedAccountPolicies
from shared.settings import ArmAccount, AzureRepository, EasyAuth, Settings, load
from tests.harness.bicep_deployment import Deployment, Resource
from tests.harness.deployed import NEEDED, PROFILES, deployed
from tests.harness.security_posture import ACCOUNTS, immutability_days, needed_days, rights

FUNCTIONS: Final = Path(__file__).parents[3] / "functions"
QUEUES_OF: Final = "Microsoft.Storage/storageAccounts/queueServices/queues"
TOML: Final = '[repository]\ntype = "azure"\n'
NOW: Final = datetime(2026, 11, 22, tzinfo=UTC)


def app_settings(deployment: Deployment) -> dict[str, str]:
    [found] = [
        one
        for one in deployment.of("Microsoft.Web/sites/config")
        if one.name.endswith("/appsettings")
    ]
    return dict(found.body["properties"])


def container_of(one: Resource) -> dict[str, Any]:
    [container] = one.get("properties.template.containers")
    return dict(container)


def environment_of(one: Resource) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container_of(one)["env"]}


def workers(deployment: Deployment) -> list[Resource]:
    return [*deployment.of("Microsoft.App/jobs"), *deployment.of("Microsoft.App/containerApps")]


def settings_of(environment: Mapping[str, str]) -> Settings:
    """As the process itself would read them; the document comes from where they say."""
    asked = []

    def fetch(url: str, variables: Mapping[str, str]) -> str:
        asked.append((url, variables["PGKEEP_IDENTITY__CLIENT_ID"]))
        return TOML

    settings = load(None, environment, fetch)
    [(url, _)] = asked
    assert re.fullmatch(r"https://sthost\w+\.blob\.core\.windows\.net/settings/pgkeep\.toml", url)
    return settings


def read_by_code(pattern: str) -> set[str]:
    texts = (path.read_text("utf-8") for path in FUNCTIONS.glob("*.py"))
    return {found for text in texts for found in re.findall(pattern, text)}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_app_settings_are_what_the_app_reads_and_nothing_else(profile: str) -> None:
    variables = app_settings(deployed(profile))
    settings = settings_of(variables)
    assert isinstance(settings.repository, AzureRepository)
    assert settings.identity is not None
    assert settings.repository.credential == settings.identity
    assert settings.has_secondary is (profile != "least-cost")
    assert settings.queues is not None
    assert settings.catalogue is not None
    assert settings.catalogue.entra == settings.identity
    assert isinstance(settings.access, EasyAuth)
    assert NEEDED["authClientId"] in settings.access.audiences
    assert isinstance(settings.account, ArmAccount)
    assert settings.account.credential == settings.identity
    ours = {name for name in variables if name.startswith("PGKEEP_")}
    hosts = {name for name in ours if name != name.upper() or name.endswith("_SCHEDULE")}
    assert ours - hosts - {"PGKEEP_CONFIG"} == {
        name for name in ours if name.split("__")[0].removeprefix("PGKEEP_").lower() in SECTIONS
    }


SECTIONS: Final = frozenset(Settings.model_fields)


def test_triggers_find_their_connections_and_schedules() -> None:
    variables = app_settings(deployed())
    schedules = read_by_code(r'schedule="%(\w+)%"')
    assert schedules == {name for name in variables if name.endswith("_SCHEDULE")}
    assert all(len(variables[name].split()) == 6 for name in schedules)
    connections = read_by_code(r'connection="(\w+)"')
    assert connections == {"PGKEEP_HOST_REPOSITORY", "PGKEEP_HOST_QUEUES"}
    for connection in connections:
        suffixes = {
            name.removeprefix(f"{connection}__")
            for name in variables
            if name.startswith(f"{connection}__")
        }
        assert {"credential", "clientId", "queueServiceUri"} <= suffixes
    assert variables["PGKEEP_HOST_REPOSITORY__blobServiceUri"].startswith("https://stbackup")
    assert variables["PGKEEP_HOST_QUEUES__queueServiceUri"].startswith("https://sthost")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_worker_reads_its_settings_and_is_who_may_do_its_work(profile: str) -> None:
    clients = {}
    for one in workers(deployed(profile)):
        variables = environment_of(one)
        settings = settings_of(variables)
        assert settings.identity is not None
        assert settings.identity.client_id is not None
        [identity] = one.get("identity.userAssignedIdentities")
        client = variables["PGKEEP_IDENTITY__CLIENT_ID"]
        assert client == f"{identity.partition(':')[2]}.properties.clientId"
        sender = variables["APPLICATIONINSIGHTS_AUTHENTICATION_STRING"]
        assert sender == f"ClientId={client};Authorization=AAD"
        clients[" ".join(container_of(one)["args"])] = client.split(".")[0]
    assert clients == {
        "run --once --queue pgkeep-backup": "id-pgkeep-test-writer",
        "run --once --queue pgkeep-restore": "id-pgkeep-test-restore",
        "run --once --queue pgkeep-expire": "id-pgkeep-test-reaper",
        "run --once --queue pgkeep-maintenance": "id-pgkeep-test-maintenance",
        "wal receive orders": "id-pgkeep-test-wal-writer",
    }


def test_without_an_image_there_are_no_workers_yet() -> None:
    from tests.harness.bicep_deployment import deploy
    from tests.harness.deployed import MAIN

    found = deploy(MAIN, {**NEEDED, "workerImage": ""})
    assert workers(found) == []
    assert found.of("Microsoft.App/managedEnvironments") != []


def test_every_queue_of_the_code_is_there_and_each_job_queue_has_one_consumer() -> None:
    names = [one.name.split("/") for one in deployed().of(QUEUES_OF)]
    assert {name for account, _, name in names if account.startswith("sthost")} == {
        *QUEUES,
        # The host adds them when a function has failed with a message five times.
        "pgkeep-events-poison",
        "pgkeep-wal-events-poison",
    }
    assert [name for account, _, name in names if account.startswith("stbackup")] == [
        "webjobs-blobtrigger-poison"
    ]
    served = [
        one.get("properties.configuration.eventTriggerConfig.scale")["rules"]
        for one in deployed().of("Microsoft.App/jobs")
    ]
    assert sorted(rule["metadata"]["queueName"] for [rule] in served) == sorted(JOB_QUEUES)
    assert all(rule["identity"] for [rule] in served)


def test_every_worker_may_use_its_queue_and_tell_what_became_of_the_job() -> None:
    granted = rights(deployed())
    contributor, sender = (
        "974c5e8b-45b9-4653-ba55-5f855dd0fb88",
        "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a",
    )
    by_queue = {
        (who, scope.rpartition("/")[2]): actions
        for (who, scope), actions in granted.items()
        if "/default/pgkeep-" in scope
    }
    consumers = ("writer", "restore", "reaper", "maintenance")
    for who, queue in zip(consumers, JOB_QUEUES, strict=True):
        assert by_queue.pop((who, queue)) == {contributor}
        assert by_queue.pop((who, f"{queue}-poison")) == {sender}
        assert by_queue.pop((who, "pgkeep-events")) == {sender}
    assert by_queue == {("wal-writer", "pgkeep-wal-events"): {sender}}


def test_every_container_of_the_layout_is_there_and_all_but_leases_are_immutable() -> None:
    containers = {
        one.name.rpartition("/")[2]
        for one in deployed().of(f"{ACCOUNTS}/blobServices/containers")
        if one.name.startswith("stbackup")
    }
    assert containers == {*layout.CONTAINERS, "eventgrid-dead-letter"}
    assert set(immutability_days(deployed())) == set(layout.CONTAINERS) - {layout.STATE}


def recording_of(deployment: Deployment, path: Path) -> PolicyReader:
    """The account as Resource Manager would describe it, once its policies are locked."""
    [policy] = deployment.of(f"{ACCOUNTS}/managementPolicies")
    service = next(
        one for one in deployment.of(f"{ACCOUNTS}/blobServices") if one.name.startswith("stbackup")
    )
    containers = [
        {
            "name": name,
            "properties": {
                "immutabilityPolicy": {
                    "properties": {
                        "immutabilityPeriodSinceCreationInDays": days,
                        "state": "Locked",
                    }
                }
            },
        }
        for name, days in immutability_days(deployment).items()
    ]
    answers = {
        "managementPolicy": {"properties": policy.get("properties")},
        "blobService": {"properties": service.get("properties")},
        "containers": containers,
    }
    path.write_text(json.dumps(answers), "utf-8")
    return PolicyReader(RecordedAccountPolicies(path), lambda: NOW, fresh_for=timedelta())


@pytest.mark.parametrize("profile", PROFILES)
def test_our_own_guard_has_nothing_against_the_deployed_account(
    profile: str, tmp_path: Path
) -> None:
    policies = recording_of(deployed(profile), tmp_path / "account.json").read()
    wanted = {name: days for name, days in needed_days().items() if name != "dump"}
    assert judge_account(policies, wanted, NOW, locked=True) == ()
    needs = [
        Need(NeedKind.BACKUP, f"{name}/orders/", NOW, NOW + timedelta(days=days))
        for name, days in needed_days().items()
        if name != layout.EVIDENCE
    ]
    keys = Need(NeedKind.KEYS, f"{layout.EVIDENCE}/orders/keys/", NOW, None)
    assert what_would_go(policies, [*needs, keys]) == ()
    # The backstop is there: what is needed for two years, it would delete.
    long = Need(NeedKind.BACKUP, "full/orders/", NOW, NOW + timedelta(days=730))
    assert [one.rule.name for one in what_would_go(policies, [long])] == ["backstop-full"]
