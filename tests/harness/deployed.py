"""The deployments that infra/ describes, evaluated once: the defaults, and both profiles."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.harness.bicep_deployment import Deployment, deploy
from tests.harness.bicep_syntax import Template, load, parse

INFRA: Final = Path(__file__).parents[2] / "infra"
MAIN: Final = INFRA / "main.bicep"
NEEDED: Final[Mapping[str, object]] = MappingProxyType(
    {
        "environmentName": "test",
        "location": "westeurope",
        "principalId": "person",
        "authClientId": "33333333-3333-4333-8333-333333333333",
        "workerImage": "registry/pgkeep@sha256:0",
        "walClusters": ["orders"],
    }
)
PROFILES: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "defaults": {},
        "least-cost": {"redundancy": "Standard_LRS", "maxExecutions": 2},
        "production": {
            "privateNetwork": True,
            "hardwareKeys": True,
            "defender": True,
            "catalogueHighAvailability": True,
        },
    }
)


@cache
def deployed(profile: str = "defaults") -> Deployment:
    return deploy(MAIN, {**NEEDED, **PROFILES[profile]})


def deployed_with(file: str, old: str, new: str) -> Deployment:
    """As `deployed`, where one file says something else. The text that goes must be there."""

    def read(path: Path) -> Template:
        if path.name != file:
            return load(path)
        text = path.read_text("utf-8")
        assert old in text, f"{file} does not say {old!r}"
        return parse(text.replace(old, new), path.parent)

    return deploy(MAIN, NEEDED, read)
