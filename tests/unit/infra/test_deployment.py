"""What azd reads fits to the templates: parameters, a profile, azure.yaml; and the documents do."""

import re
from collections import Counter
from typing import Any, Final

import pytest
import yaml

from shared.settings import Settings
from tests.harness.bicep_deployment import Deployment, deploy
from tests.harness.bicep_parameters import parameters, profile_of, variables_of
from tests.harness.bicep_syntax import SyntaxFault, load, named, text_of
from tests.harness.deployed import (
    ENVIRONMENT,
    INFRA,
    LEAST_COST,
    MAIN,
    NEEDED,
    PARAMETERS,
    deployed,
)
from tests.harness.hook_console import HOOKS
from worker.metrics_endpoint import LIFE_PATH
from worker.observation import METRICS_ADDRESS

ROOT: Final = INFRA.parent
SCRIPTS: Final = sorted(path for path in HOOKS.iterdir() if path.suffix == "")
AZURE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "azure.yaml").read_text("utf-8"))
GIVEN: Final = parameters(PARAMETERS, ENVIRONMENT)


def outputs() -> set[str]:
    return {one.name for one in load(MAIN).of("output")}


# Parameters and profiles


def test_every_parameter_is_given_and_no_other() -> None:
    assert set(GIVEN) == {one.name for one in load(MAIN).of("parameter")}
    # azd reads main.bicepparam alone when both are there.
    assert not list(INFRA.glob("*.parameters.json"))


def test_every_value_is_one_that_its_parameter_allows() -> None:
    types = {"string": str, "int": int, "bool": bool, "array": list}
    text = MAIN.read_text("utf-8")
    declared = dict(re.findall(r"^param (\w+) (\w+)", text, re.MULTILINE))
    for one in load(MAIN).of("parameter"):
        value = GIVEN[one.name]
        assert type(value) is types[declared[one.name]], one.name
        allowed = one.decorators.get("allowed")
        if allowed is not None:
            assert value in {text_of(choice).strip("'") for choice in named(allowed)}


@pytest.mark.parametrize("missing", ["AZURE_ENV_NAME", "AZURE_LOCATION", "PGKEEP_AUTH_CLIENT_ID"])
def test_what_nobody_can_guess_has_no_default(missing: str) -> None:
    environment = {name: value for name, value in ENVIRONMENT.items() if name != missing}
    with pytest.raises(SyntaxFault, match=missing):
        parameters(PARAMETERS, environment)


def test_lists_come_from_commas_and_are_empty_by_default() -> None:
    given = parameters(PARAMETERS, {**ENVIRONMENT, "PGKEEP_WAL_CLUSTERS": "orders,shop"})
    assert given["walClusters"] == ["orders", "shop"]
    assert given["alertEmails"] == given["allowedIpRanges"] == []


def test_the_least_cost_profile_changes_what_it_names_and_nothing_else() -> None:
    profile = profile_of(LEAST_COST)
    assert profile.keys() <= variables_of(PARAMETERS)
    given = parameters(PARAMETERS, {**ENVIRONMENT, **profile})
    assert len({name for name in given if given[name] != GIVEN[name]}) == len(profile)


def test_no_variable_of_a_deployment_is_taken_for_a_setting() -> None:
    sections = {*Settings.model_fields, "profile", "config"}
    for name in variables_of(PARAMETERS) | outputs():
        assert name.removeprefix("PGKEEP_").lower().split("__")[0] not in sections, name


# azure.yaml


def test_azd_finds_the_template_the_code_and_the_hooks() -> None:
    infra = AZURE["infra"]
    assert (ROOT / infra["path"] / f"{infra['module']}.bicep") == MAIN
    [(service, described)] = AZURE["services"].items()
    assert deployed().one("Microsoft.Web/sites").get("tags.azd-service-name") == service
    package = ROOT / described["project"]
    assert all((package / name).is_file() for name in ("function_app.py", "host.json"))
    for name, hook in AZURE["hooks"].items():
        assert hook["shell"] == "sh"
        assert (ROOT / hook["run"]) == HOOKS / name


def test_the_package_of_the_app_holds_what_it_imports_and_no_settings() -> None:
    lines = (ROOT / ".funcignore").read_text("utf-8").split()
    needed = {"function_app.py", "functions", "host.json", "requirements.txt", "shared"}
    assert not needed & set(lines)
    assert {"pgkeep.toml", "infra", "tests", "worker"} <= set(lines)


# Events


def subscriptions() -> Deployment:
    path = INFRA / "modules" / "event-subscriptions.bicep"
    return deploy(path, {"topicName": "topic", "appName": "app", "backupAccountId": "id"})


def test_each_blob_trigger_has_one_subscription_for_the_documents_that_it_waits_for() -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "functions").glob("blob_*.py")]
    triggers = {
        re.findall(r"^def (blob_\w+)", text, re.MULTILINE)[0]: re.findall(r'path="([^"]+)"', text)[
            0
        ]
        for text in texts
    }
    found = {}
    for one in subscriptions().of("Microsoft.EventGrid/systemTopics/eventSubscriptions"):
        url = one.get("properties.destination.properties.endpointUrl")
        begin = one.get("properties.filter.subjectBeginsWith")
        end = one.get("properties.filter.subjectEndsWith")
        name = re.findall(r"functionName=Host\.Functions\.(\w+)&code=", url)[0]
        container = re.findall(r"^/blobServices/default/containers/(\w+)/$", begin)[0]
        found[name] = f"{container}/{{cluster}}/{{label}}{end}"
        assert one.get("properties.filter.includedEventTypes") == ["Microsoft.Storage.BlobCreated"]
        lost = one.get("properties.deadLetterWithResourceIdentity.deadLetterDestination.properties")
        assert lost["blobContainerName"] == "eventgrid-dead-letter"
    assert found == triggers


def test_the_webhooks_key_stays_in_the_template() -> None:
    assert subscriptions().outputs == {}


# Workers


def test_any_cluster_can_have_its_receiver() -> None:
    clusters = ["a", "orders", "fourteen-chars-then-more", "thirteenchars-x", "a--b", "x" * 63]
    made = deploy(MAIN, {**NEEDED, "walClusters": clusters}).of("Microsoft.App/containerApps")
    names = [one.name for one in made]
    # https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules
    legal = re.compile(r"(?!.*--)[a-z][a-z0-9-]{0,30}[a-z0-9]")
    assert all(legal.fullmatch(name) for name in names), names
    assert Counter(names).most_common(1)[0][1] == 1
    for one in made:
        scale = one.get("properties.template.scale")
        assert (scale["minReplicas"], scale["maxReplicas"]) == (1, 1)


def test_a_receiver_that_hangs_is_started_again() -> None:
    made = deploy(MAIN, {**NEEDED, "walClusters": ["orders"]})
    [receiver] = made.of("Microsoft.App/containerApps")
    [container] = receiver.get("properties.template.containers")
    [address] = [one["value"] for one in container["env"] if one["name"] == METRICS_ADDRESS]
    host, _, port = address.partition(":")
    assert host == "0.0.0.0", "probes come from outside the container"  # noqa: S104 - nothing binds
    probes = {one["type"]: one for one in container["probes"]}
    assert probes.keys() == {"Startup", "Liveness"}
    for one in probes.values():
        assert one["httpGet"] == {"path": LIFE_PATH, "port": int(port), "scheme": "HTTP"}
    # The heartbeat of the container before may lie in /tmp still: what starts must not be ended.
    startup = probes["Startup"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > 60


def test_logins_of_clusters_are_files_for_who_takes_backups_and_wal_alone() -> None:
    deployment = deployed()
    workers = [*deployment.of("Microsoft.App/jobs"), *deployment.of("Microsoft.App/containerApps")]
    holders = {}
    for one in workers:
        secrets = one.get("properties.configuration.secrets")
        [container] = one.get("properties.template.containers")
        files = {mount["mountPath"] for mount in container["volumeMounts"]} & {"/secrets"}
        assert bool(secrets) is bool(files)
        if secrets:
            [secret] = secrets
            holders[one.name.split("-")[1]] = secret["keyVaultUrl"].rpartition("/")[2]
    assert holders == {"backup": "connections", "orders": "connections"}


def test_a_job_is_never_begun_twice_by_the_platform_and_may_last_a_day() -> None:
    for one in deployed().of("Microsoft.App/jobs"):
        configuration = one.get("properties.configuration")
        assert configuration["replicaRetryLimit"] == 0
        assert configuration["replicaTimeout"] >= 86_400


# What the documents tell people to set


def test_documents_set_what_the_templates_read_and_run_hooks_that_exist() -> None:
    pages = {path: path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md")}
    for path, text in pages.items():
        unknown = set(re.findall(r"azd env set ([A-Z_]+)", text)) - variables_of(PARAMETERS)
        assert unknown <= {"AZURE_LOCATION", "AZURE_SUBSCRIPTION_ID"}, path.name
        named_there = set(re.findall(r"infra/hooks/([a-z-]+)(?!\S*\.json)", text))
        assert named_there <= {script.name for script in SCRIPTS}, path.name
