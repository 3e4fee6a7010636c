"""The deployments that infra/ describes, evaluated once: the defaults, and both profiles."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.harness import bicep_parameters
from tests.harness.bicep_deployment import Deployment, deploy
from tests.harness.bicep_syntax import Template, load, parse

INFRA: Final = Path(__file__).parents[2] / "infra"
MAIN: Final = INFRA / "main.bicep"
PARAMETERS: Final = INFRA / "main.bicepparam"
LEAST_COST: Final = INFRA / "profiles" / "least-cost.env"
NEEDED: Final[Mapping[str, object]] = MappingProxyType(
    {
        "environmentName": "test",
        "location": "westeurope",
        "principalId": "person",
        "authClientId": "33333333-3333-4333-8333-333333333333",
        "workerImage": "registry/pgkeep@sha256:0",
        "walClusters": ["orders"],
        "connections": True,
    }
)
ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "AZURE_ENV_NAME": "test",
        "AZURE_LOCATION": "westeurope",
        "AZURE_PRINCIPAL_ID": "person",
        "PGKEEP_AUTH_CLIENT_ID": "33333333-3333-4333-8333-333333333333",
        "PGKEEP_WORKER_IMAGE": "registry/pgkeep@sha256:0",
        "PGKEEP_WAL_CLUSTERS": "orders",
        "PGKEEP_CONNECTIONS": "true",
    }
)
PROFILES: Final = ("defaults", "least-cost", "production")


def parameters(profile: str) -> Mapping[str, object]:
    """What main.bicep is given; production is what main.bicepparam says by itself."""
    if profile == "defaults":
        return NEEDED
    chosen = bicep_parameters.profile_of(LEAST_COST) if profile == "least-cost" else {}
    return bicep_parameters.parameters(PARAMETERS, {**ENVIRONMENT, **chosen})


@cache
def deployed(profile: str = "defaults") -> Deployment:
    return deploy(MAIN, parameters(profile))


def deployed_with(file: str, old: str, new: str) -> Deployment:
    """As `deployed`, where one file says something else. The text that goes must be there."""

    def read(path: Path) -> Template:
        if path.name != file:
            return load(path)
        text = path.read_text("utf-8")
        assert old in text, f"{file} does not say {old!r}"
        return parse(text.replace(old, new), path.parent)

    return deploy(MAIN, NEEDED, read)
