"""Index a function app through azure.functions' public API, and refuse what this host cannot play.

The rules are those of Microsoft's worker: exactly one FunctionApp in function_app.py, and one bad
function fails the whole app, so that a mistake shows here and not in Azure.
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import azure.functions as func

TRIGGERS = ("timerTrigger", "httpTrigger", "blobTrigger", "queueTrigger")


class AppRefused(Exception):
    """The app cannot be hosted; the text says which function and why."""


@dataclass(frozen=True, slots=True)
class HostedFunction:
    """One function; `trigger` is its binding as function.json would spell it."""

    name: str
    call: Callable[..., Any]
    trigger: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.trigger["type"])


def index_app(directory: Path) -> list[HostedFunction]:
    """Import `function_app.py` of the directory and list its functions. Call once per process."""
    app = _only_app(_import(directory / "function_app.py"))
    return [_hosted(function) for function in app.get_functions()]


def _import(path: Path) -> ModuleType:
    # A name of its own, so that a process (a test) can host several apps.
    spec = importlib.util.spec_from_file_location(f"function_app_{uuid4().hex}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise AppRefused(f"there is no {path}")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def _only_app(module: ModuleType) -> func.FunctionApp:
    apps = [value for value in vars(module).values() if isinstance(value, func.FunctionApp)]
    if len(apps) != 1:
        raise AppRefused(f"function_app.py holds {len(apps)} FunctionApp objects instead of one")
    return apps[0]


def _hosted(function: Any) -> HostedFunction:  # noqa: ANN401 - its class is not exported
    name, trigger = function.get_function_name(), function.get_trigger()
    kind = trigger.get_binding_name() if trigger else "no trigger"
    if kind not in TRIGGERS:
        raise AppRefused(f"function {name} has {kind}; this host plays {', '.join(TRIGGERS)}")
    bound = {binding.get_dict_repr()["name"] for binding in function.get_bindings()} - {"$return"}
    if bound != {trigger.name}:
        raise AppRefused(f"function {name} has bindings beside its trigger: {bound}")
    call = function.get_user_function()
    parameters = set(inspect.signature(call).parameters) - {"context"}
    if parameters != bound:
        raise AppRefused(f"function {name} takes {sorted(parameters)}, but is bound to {bound}")
    return HostedFunction(name, call, dict(trigger.get_dict_repr()))
