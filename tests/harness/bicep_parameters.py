"""What infra/main.bicepparam gives to main.bicep in a given environment."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.harness.bicep_deployment import deploy
from tests.harness.bicep_syntax import SyntaxFault, parse

# The second argument is a literal, for Bicep reads it when it compiles.
_READ: Final = re.compile(r"readEnvironmentVariable\('(\w+)'(?:, '([^']*)')?\)")
_PARAMETER: Final = re.compile(r"^param (\w+) =", re.MULTILINE)


def variables_of(path: Path) -> set[str]:
    """Names of the environment that the file asks for."""
    return {name for name, _ in _READ.findall(path.read_text("utf-8"))}


def profile_of(path: Path) -> dict[str, str]:
    """A file for `azd env set --file`."""
    lines = path.read_text("utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def parameters(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Raises SyntaxFault for a variable that has neither a value nor a default."""

    def value_of(read: re.Match[str]) -> str:
        value = environment.get(read[1], read[2])
        if value is None:
            raise SyntaxFault(f"{path.name} needs {read[1]}")
        return f"'{value}'"

    text = _READ.sub(value_of, path.read_text("utf-8"))
    # Parameters of such a file have no type; an output has, and is evaluated.
    template = parse(_PARAMETER.sub(r"output \1 object =", text.replace("using ", "// ")))
    return dict(deploy(path, {}, lambda _: template).outputs)
