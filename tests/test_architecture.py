"""What keeps the code as CONTRIBUTING describes it, beyond what ruff and import-linter know."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import azure.functions as func
import grimp
import pytest

import function_app

ROOT = Path(__file__).resolve().parents[1]
EDGES = ("functions", "worker")
PRODUCT = ("functions", "shared", "worker", "local", "scripts")

BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "core", "base", "manager"}
BANNED_CLASSES = {"Server", "Manager", "App"}

MODULE_LINES = 400
FUNCTION_LINES = 50
PARAMETERS = 7
# typer declares each option of a verb as a parameter.
MANY_PARAMETERS = {"worker/cli.py", "worker/cli_files.py"}

# The real exit, environment and clock, and where each may be touched. A stack for one machine
# (local/) lives in the real world: of these rules, only those about exits bind it.
REAL_WORLD = {
    "sys.exit": {
        "worker/__main__.py",
        "local/__main__.py",
        "scripts/generate_reference.py",
        "docs/how-to/emergency_restore.py",  # an operator runs it without the project
        "docs/how-to/emergency_chain.py",  # idem
        "docs/how-to/emergency_wal.py",  # idem
    },
    "os._exit": {"worker/pgkeep_wal.py"},  # PostgreSQL reads its status, whatever happened
    "os.environ": {
        "shared/settings/toml_file.py",
        "worker/pgkeep_wal.py",
        "worker/__main__.py",
        "worker/wiring.py",
        "functions/wiring.py",
    },
    "os.getenv": set[str](),
    "datetime.now": {
        "worker/wiring.py",
        "functions/wiring.py",
    },
    "datetime.utcnow": set[str](),
    "time.time": set[str](),
}

# `except Exception` that ends here: process edges, each of which logs what it caught.
BROAD_EXCEPT = {
    "functions/followed_settings.py",
    "functions/http_protocol.py",
    "local/functions_host/http_routes.py",
    "worker/observation.py",
    "worker/pgkeep_wal.py",
}

# Packages of shared that only one edge reaches, and why they are shared all the same.
ONE_EDGE: dict[str, str] = {}

# Loaded when a function runs, not when Azure indexes the app.
HEAVY = ("azure.identity", "azure.storage.blob", "psycopg", "requests", "zstandard")

# Imported by name, pinned exactly by the distribution that brings it.
PINNED_BY_ANOTHER = {"pydantic-core": "pydantic"}
# Namespace packages, where the first part of a name says nothing about the distribution.
NAMESPACES = {
    "azure.core": "azure-core",
    "azure.functions": "azure-functions",
    "azure.identity": "azure-identity",
    "azure.keyvault.keys": "azure-keyvault-keys",
    "azure.monitor.opentelemetry": "azure-monitor-opentelemetry",
    "azure.storage.blob": "azure-storage-blob",
    "azure.storage.queue": "azure-storage-queue",
    "google_crc32c": "google-crc32c",
    "opentelemetry.exporter.prometheus": "opentelemetry-exporter-prometheus",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry": "opentelemetry-api",
}


def python_files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if "node_modules" not in path.parts)


PRODUCT_FILES = [ROOT / "function_app.py", *python_files(*PRODUCT, "docs")]
ALL_FILES = [*PRODUCT_FILES, *python_files("tests")]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), relative(path))


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_module_is_a_drawer() -> None:
    drawers = [
        relative(path)
        for path in ALL_FILES
        if path.stem in BANNED_NAMES
        or path.parent.name in BANNED_NAMES
        or any(path.stem.endswith(f"_{name}") for name in BANNED_NAMES)
    ]
    assert drawers == []


def test_no_class_is_the_whole_program() -> None:
    found = [
        f"{relative(path)}: {node.name}"
        for path in PRODUCT_FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and node.name in BANNED_CLASSES
    ]
    assert found == []


def test_every_module_says_what_it_is() -> None:
    mute = [relative(path) for path in ALL_FILES if not ast.get_docstring(tree(path))]
    assert mute == []


def test_modules_stay_short() -> None:
    lengths = {relative(path): len(path.read_text("utf-8").splitlines()) for path in PRODUCT_FILES}
    assert {name: lines for name, lines in lengths.items() if lines > MODULE_LINES} == {}


def test_functions_stay_short() -> None:
    long = {
        f"{relative(path)}: {function.name}": lines
        for path in PRODUCT_FILES
        for function in functions_of(path)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES
    }
    assert long == {}


def test_functions_take_few_parameters() -> None:
    many = {
        f"{relative(path)}: {function.name}": count
        for path in PRODUCT_FILES
        if relative(path) not in MANY_PARAMETERS
        for function in functions_of(path)
        if (count := _parameters(function)) > PARAMETERS
    }
    assert many == {}


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    names = [item.arg for item in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in {"self", "cls"}])


@pytest.mark.parametrize("what", REAL_WORLD)
def test_clock_environment_and_exit_come_in_at_the_edges(what: str) -> None:
    users = {
        relative(path)
        for path in PRODUCT_FILES
        if "exit" in what or not relative(path).startswith("local/")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == what
    }
    assert users == REAL_WORLD[what], f"the list of who may use {what} and the code differ"


def test_nothing_sleeps() -> None:
    sleepers = [
        f"{relative(path)}:{node.lineno}"
        for path in ALL_FILES
        for node in ast.walk(tree(path))
        if (
            isinstance(node, ast.Attribute) and ast.unparse(node) in {"time.sleep", "asyncio.sleep"}
        )
        or (
            isinstance(node, ast.ImportFrom)
            and node.module in {"time", "asyncio"}
            and "sleep" in {name.name for name in node.names}
        )
    ]
    assert sleepers == []


def test_broad_except_stands_only_where_it_is_listed() -> None:
    """Catching everything to clean up and raise it again is another matter."""
    broad = {
        relative(path)
        for path in PRODUCT_FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not _raises_again(node)
    }
    assert broad == BROAD_EXCEPT


def _is_broad(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or ast.unparse(handler.type) in {"Exception", "BaseException"}


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_no_command_goes_through_a_shell() -> None:
    found = [
        f"{relative(path)}:{node.value.lineno}"
        for path in ALL_FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.keyword) and node.arg == "shell"
    ]
    assert found == []


@cache
def triggers() -> dict[str, func.Blueprint]:
    """Blueprints by the name of the file that defines them."""
    modules = {
        path.stem: importlib.import_module(f"functions.{path.stem}") for path in _functions()
    }
    return {
        name: module.blueprint for name, module in modules.items() if hasattr(module, "blueprint")
    }


def _functions() -> list[Path]:
    return [path for path in (ROOT / "functions").glob("*.py") if path.stem != "__init__"]


def test_each_trigger_is_one_function_named_like_its_file() -> None:
    for name, blueprint in triggers().items():
        # A blueprint keeps what it registered to itself; an app of its own tells.
        app = func.FunctionApp()
        app.register_functions(blueprint)
        assert [function.get_function_name() for function in app.get_functions()] == [name]


def test_each_trigger_is_registered() -> None:
    registered = [function.get_function_name() for function in function_app.app.get_functions()]
    assert len(registered) == len(triggers())
    assert set(registered) == set(triggers())


def test_only_triggers_are_named_like_triggers() -> None:
    prefixes = ("timer_", "blob_", "queue_", "http_")
    named = {path.stem for path in _functions() if path.stem.startswith(prefixes)}
    assert named - triggers().keys() == {"http_protocol"}  # what the http_ ones speak


def test_indexing_the_function_app_loads_nothing_heavy() -> None:
    assert _loaded_by("function_app") == []


def test_the_domain_loads_nothing_heavy() -> None:
    names = [path.stem for path in (ROOT / "shared/domain").glob("*.py") if path.stem[0] != "_"]
    assert _loaded_by(*(f"shared.domain.{name}" for name in names)) == []


def _loaded_by(*modules: str) -> list[str]:
    program = (
        f"import sys, {', '.join(modules)}\n"
        f"print(*(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@cache
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("functions", "shared", "worker", cache_dir=None)


def test_each_package_of_shared_is_needed_by_both_edges() -> None:
    one_sided = {
        package
        for package in imports().find_children("shared")
        for edge in EDGES
        if not imports().chain_exists(edge, package, as_packages=True)
    }
    assert one_sided == set(ONE_EDGE)


def pins(name: str) -> dict[str, str]:
    """Version by normalised distribution name."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    matches = [
        re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", line)
        for line in lines
        if line and line[0] not in "#-"
    ]
    assert all(matches), f"a line of {name} is no exact pin"
    return {match[1].lower(): match[2] for match in matches if match}


def test_both_edges_install_the_same_versions() -> None:
    functions, worker = pins("requirements.txt"), pins("worker/requirements.txt")
    both = functions.keys() & worker.keys()
    assert {name: functions[name] for name in both} == {name: worker[name] for name in both}


@pytest.mark.parametrize(
    ("requirements", "folders"),
    [
        ("requirements.txt", ("functions", "shared")),
        ("worker/requirements.txt", ("worker", "shared")),
    ],
)
def test_requirements_are_what_the_code_imports(
    requirements: str, folders: tuple[str, ...]
) -> None:
    files = python_files(*folders)
    if "functions" in folders:
        files.append(ROOT / "function_app.py")
    imported = {name for path in files for name in _distributions(path)}
    assert imported - PINNED_BY_ANOTHER.keys() == set(pins(requirements))


def _distributions(path: Path) -> Iterator[str]:
    for module in _imported_modules(path):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or (ROOT / top).exists():
            continue
        yield _distribution(module)


def _distribution(module: str) -> str:
    for prefix, name in NAMESPACES.items():
        if module == prefix or module.startswith(f"{prefix}."):
            return name
    names = installed().get(module.partition(".")[0], [module])
    return names[0].lower().replace("_", "-")


@cache
def installed() -> Mapping[str, list[str]]:
    """Distributions by the packages that they bring."""
    return packages_distributions()


def _imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
