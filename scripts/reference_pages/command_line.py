"""cli.md: exit statuses, and every verb of `pgkeep` with its arguments and options."""
# ruff: noqa: ANN401 - typer brings click under a private name, so its classes have none here

import importlib
from collections.abc import Iterator
from typing import Any

import typer.main

from scripts.reference_pages.errors import families, sentence
from shared.errors import PgkeepError


def body() -> Iterator[str]:
    """A heading per verb."""
    yield "## Exit statuses"
    yield ""
    yield "| status | when |"
    yield "|---|---|"
    yield "| 0 | The verb did what it says. |"
    for family in families():
        yield f"| {family.exit_status} | {sentence(family)} |"
    yield f"| {PgkeepError.exit_status} | {PgkeepError.hint} |"
    yield "| 130 | It was interrupted. |"
    yield ""
    for name, command in verbs():
        yield from _verb(name, command)


def verbs() -> list[tuple[str, Any]]:
    """Every verb's full name and command, in the order in which the code registers them."""
    app = importlib.import_module("worker.cli").app
    return list(_verbs("pgkeep", typer.main.get_command(app)))


def _verbs(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from _verbs(f"{path} {name}", inner)


def _verb(name: str, command: Any) -> Iterator[str]:
    arguments = [_argument(item) for item in command.params if _is_argument(item)]
    yield f"## `{name}`"
    yield ""
    yield " ".join((command.help or "").split())
    yield ""
    yield f"    {' '.join([name, *arguments, '[OPTIONS]'])}"
    yield ""
    yield "| argument or option | meaning |"
    yield "|---|---|"
    for parameter in command.params:
        yield f"| `{_spelling(parameter)}` | {_help(parameter)} |"
    yield ""


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _argument(parameter: Any) -> str:
    name = str(parameter.name).upper()
    return name if parameter.required else f"[{name}]"


def _spelling(parameter: Any) -> str:
    if _is_argument(parameter):
        return _argument(parameter)
    value = "" if parameter.is_flag else f" {parameter.opts[0].strip('-').upper()}"
    return ", ".join(f"{option}{value}" for option in parameter.opts)


def _help(parameter: Any) -> str:
    notes = [parameter.help or ""]
    if parameter.envvar:
        notes.append(f"Default: the variable `{parameter.envvar}`.")
    if parameter.multiple:
        notes.append("Several times, if need be.")
    return " ".join(notes).replace("|", "\\|")
