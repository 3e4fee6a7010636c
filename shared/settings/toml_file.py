"""Reads `pgkeep.toml`, applies what the environment overrides, and says where a fault stands.

`PGKEEP_CONFIG` names the file, or the blob, by its URL. A variable such as
PGKEEP_REPOSITORY__ACCOUNT_URL overrides the key `account_url` of the section `[repository]`.
"""

import json
import os
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from shared.errors import SettingsInvalid
from shared.settings.root import Settings

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"\s*([\w\"'-]+(?:\s*\.\s*[\w\"'-]+)*)\s*=")

CONFIG_VARIABLE = "PGKEEP_CONFIG"
ENVIRONMENT_PREFIX = "PGKEEP_"
_SECTIONS = (
    "identity",
    "repository",
    "queues",
    "catalogue",
    "access",
    "account",
    "keys",
    "worker",
    "wal",
    "drill",
    "fleet",
)
# Which variant of a section is meant stands in pydantic's locations, and in no file.
_VARIANTS = {"azure", "directory", "pem", "key-vault", "easy-auth", "local", "arm", "recorded"}


Fetch = Callable[[str, Mapping[str, str]], str]
"""Reads the document at a URL, as who the environment says. Raises SettingsInvalid, and what a
store raises."""


def load(
    path: Path | str | None = None,
    environment: Mapping[str, str] | None = None,
    fetch: Fetch | None = None,
) -> Settings:
    """Read the file or URL (argument, else PGKEEP_CONFIG), apply overrides, validate.

    Relative paths in a file are relative to the file; in a document that `fetch` brings they are
    left to the working directory. Raises SettingsInvalid naming file, line and key.
    """
    variables = os.environ if environment is None else environment
    source = variables.get(CONFIG_VARIABLE) if path is None else str(path)
    text = "" if source is None else _read(source, variables, fetch)
    values = _parse(text, source)
    _apply_overrides(values, variables)
    if source is not None and not is_url(source):
        _anchor_paths(values, Path(source).resolve().parent)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsInvalid(_describe(error, source, text)) from None


def is_url(source: str) -> bool:
    """Whether the document is a blob; otherwise it is a file."""
    return source.startswith(("https://", "http://"))


def _read(source: str, variables: Mapping[str, str], fetch: Fetch | None) -> str:
    if is_url(source):
        if fetch is None:
            raise SettingsInvalid(f"settings at {source} cannot be read here")
        return fetch(source, variables)
    try:
        return Path(source).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"cannot read {source}: {error}") from None


def _parse(text: str, source: str | None) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid(f"{source}: {str(error).lower()}") from None


def _apply_overrides(values: dict[str, object], variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        # The Functions host's own variables share the prefix (PGKEEP_REPOSITORY__blobServiceUri).
        if name != name.upper():
            continue
        keys = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if not name.startswith(ENVIRONMENT_PREFIX) or keys[0] not in (*_SECTIONS, "profile"):
            continue
        target = values
        for key in keys[:-1]:
            inner = target.setdefault(key, {})
            if not isinstance(inner, dict):
                raise SettingsInvalid(f"{name}: {key} is not a section")
            target = inner
        target[keys[-1]] = _list_or_text(value)


def _list_or_text(value: str) -> object:
    """Lists and tables are written as JSON; everything else is text, which pydantic reads."""
    try:
        return json.loads(value) if value[:1] in {"[", "{"} else value
    except ValueError:
        return value


_PATH_KEYS = {
    "path",
    "ca_file",
    "public_key",
    "public_jwk",
    "password_file",
    "service_file",
    "validation_sql",
    "directory",
    "scratch",
    "socket",
    "spool",
    "replication_record",
}


def _anchor_paths(value: object, base: Path) -> None:
    """Make the relative paths in the file relative to the file, whatever the working directory."""
    if isinstance(value, list):
        for item in value:
            _anchor_paths(item, base)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key in _PATH_KEYS and isinstance(inner, str):
            value[key] = str(base / inner)
        elif key == "program_directories" and isinstance(inner, list):
            value[key] = [str(base / str(item)) for item in inner]
        else:
            _anchor_paths(inner, base)


def _describe(error: ValidationError, source: str | None, text: str) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    location = [part for part in first["loc"] if part not in _VARIANTS]
    line = _line_of(text, location)
    message = first["msg"]
    if first["type"] == "union_tag_not_found":  # pydantic speaks of discriminators
        location, message = [*location, "type"], "is missing"
    key = ".".join(str(part) for part in location)
    where = f"{source or 'environment'}" + (f", line {line}" if line else "")
    return f"{where}: {key or 'settings'}: {message[:1].lower()}{message[1:]}"


def _line_of(text: str, location: Sequence[int | str]) -> int | None:
    """Line of the deepest table or key of `location` that the file spells out, or None."""
    spelled = ((path, number) for path, number in _places(text) if path == location[: len(path)])
    return max(spelled, key=lambda place: len(place[0]), default=(location, None))[1]


def _places(text: str) -> Iterator[tuple[Sequence[int | str], int]]:
    """Path and line of each table header and each key, arrays of tables by their index."""
    counts: Counter[str] = Counter()
    table: list[int | str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            if header[1] == "[[":
                counts[header[2]] += 1
            table = _indexed(_names(header[2]), counts)
            yield table, number
        elif key := _KEY.match(line):
            yield [*table, *_names(key[1])], number


def _indexed(names: list[str], counts: Mapping[str, int]) -> list[int | str]:
    """With the index of the newest element behind the name of each array of tables."""
    path: list[int | str] = []
    for depth, name in enumerate(names, 1):
        path.append(name)
        if count := counts.get(".".join(names[:depth]), 0):
            path.append(count - 1)
    return path


def _names(dotted: str) -> list[str]:
    return [name.strip().strip("\"'") for name in dotted.split(".")]
