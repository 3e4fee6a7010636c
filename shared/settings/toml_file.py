"""Reads `pgkeep.toml`, applies what the environment overrides, and says where a fault stands.

`PGKEEP_CONFIG` names the file. A variable such as PGKEEP_REPOSITORY__ACCOUNT_URL overrides the key
`account_url` of the section `[repository]`.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from shared.errors import SettingsInvalid
from shared.settings.root import Settings

CONFIG_VARIABLE = "PGKEEP_CONFIG"
ENVIRONMENT_PREFIX = "PGKEEP_"
_SECTIONS = ("repository", "queues", "catalogue", "keys", "worker", "wal", "drill", "fleet")


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the file (argument, else PGKEEP_CONFIG), apply overrides, validate.

    Relative paths in the file are relative to the file. Raises SettingsInvalid naming file, line
    and key.
    """
    variables = os.environ if environment is None else environment
    if path is None and CONFIG_VARIABLE in variables:
        path = Path(variables[CONFIG_VARIABLE])
    text = "" if path is None else _read(path)
    values = _parse(text, path)
    _apply_overrides(values, variables)
    if path is not None:
        _anchor_paths(values, path.resolve().parent)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsInvalid(_describe(error, path, text)) from None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"cannot read {path}: {error}") from None


def _parse(text: str, path: Path | None) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid(f"{path}: {str(error).lower()}") from None


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
        target[keys[-1]] = value


_PATH_KEYS = {
    "path",
    "ca_file",
    "public_jwk",
    "password_file",
    "validation_sql",
    "directory",
    "scratch",
    "socket",
    "spool",
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


def _describe(error: ValidationError, path: Path | None, text: str) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    location = [
        part for part in first["loc"] if part not in ("azure", "directory", "pem", "key-vault")
    ]
    line = _line_of(text, location)
    message = first["msg"]
    if first["type"] == "union_tag_not_found":  # pydantic speaks of discriminators
        location, message = [*location, "type"], "is missing"
    key = ".".join(str(part) for part in location)
    where = f"{path or 'environment'}" + (f", line {line}" if line else "")
    return f"{where}: {key or 'settings'}: {message[:1].lower()}{message[1:]}"


def _line_of(text: str, location: list[int | str]) -> int | None:
    """Line of the deepest key of `location` that the file spells out, or None."""
    names = [str(part) for part in location if isinstance(part, str)]
    index = next((part for part in location if isinstance(part, int)), 0)
    lines = text.splitlines()
    start = found = 0
    for name in names:
        header = re.compile(rf"\s*\[\[?(?:[\w-]+\.)*{re.escape(name)}\]\]?")
        pattern = re.compile(
            rf"{header.pattern}|\s*{re.escape(name)}\s*=|.*[{{,]\s*{re.escape(name)}\s*="
        )
        hits = [number for number, line in enumerate(lines[start:], start) if pattern.match(line)]
        if not hits:
            break
        is_array = lines[hits[0]].lstrip().startswith("[[")
        start = hits[min(index, len(hits) - 1)] if is_array else hits[0]
        found = start + 1
    return found or None
