"""errors.md: every error class of the product, by family."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

from shared.errors import PgkeepError

PACKAGES = ("shared", "functions", "worker", "local")


def body() -> Iterator[str]:
    """A heading per code."""
    yield from _error(PgkeepError)
    errors = error_classes()
    for family in families():
        yield f"## {family.__name__}"
        yield ""
        yield f"{sentence(family)} Exit status {family.exit_status}, HTTP {family.http_status}."
        yield ""
        for error in errors:
            if issubclass(error, family):
                yield from _error(error)


def error_classes() -> list[type[PgkeepError]]:
    """All of them, in order of their codes. Imports the whole product."""
    for package in PACKAGES:
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            importlib.import_module(module.name)
    found: set[type[PgkeepError]] = {PgkeepError, *_below(PgkeepError)}
    ours = [error for error in found if error.__module__.partition(".")[0] in PACKAGES]
    return sorted(ours, key=lambda error: (error.code, error.__name__))


def families() -> list[type[PgkeepError]]:
    """The direct heirs of PgkeepError: one exit status each."""
    return sorted(PgkeepError.__subclasses__(), key=lambda error: error.exit_status)


def sentence(thing: object) -> str:
    """The docstring on one line."""
    return " ".join((inspect.getdoc(thing) or "").split())


def _below(error: type[PgkeepError]) -> Iterator[type[PgkeepError]]:
    for heir in error.__subclasses__():
        yield heir
        yield from _below(heir)


def _error(error: type[PgkeepError]) -> Iterator[str]:
    again = "trying again may help" if error.retryable else "trying again does not help"
    yield f"### `{error.code}`"
    yield ""
    yield sentence(error)
    yield ""
    yield f"- hint: {error.hint}"
    yield f"- exit status {error.exit_status}, HTTP {error.http_status}; {again}"
    yield f"- `{error.__name__}` of `{error.__module__}`"
    yield ""
