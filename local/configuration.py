"""Writes what the stack's programs read: `pgkeep.toml` with its keys, and the host's settings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local.azurite import EmulatedAccount
from local.document_database.load import TABLES, VALIDATION_SQL
from worker.keys.generate import KeyPair, KeySet

CLUSTER = "main"
DATABASE = "documents"
FULL_SCHEDULE = "0 3 * * 0"
# The names that the triggers of functions/ give to their connections.
REPOSITORY_CONNECTION = "PGKEEP_HOST_REPOSITORY"
QUEUES_CONNECTION = "PGKEEP_HOST_QUEUES"

Toml = str | int | Path | list["Toml"] | Mapping[str, "Toml"]


@dataclass(frozen=True, slots=True)
class StackConfiguration:
    """What differs from stack to stack. `run_as` is the account for PostgreSQL when we are root."""

    source_dsn: str
    password_file: Path
    catalogue_dsn: str
    storage: EmulatedAccount
    keys: KeySet
    scratch: Path
    programs: Path
    run_as: str | None


def pgkeep_toml(stack: StackConfiguration) -> str:
    """A file that every verb, the worker's loop and the function app accept."""
    drill: dict[str, Toml] = {"scratch": stack.scratch, "program_directories": [stack.programs]}
    if stack.run_as is not None:
        drill["run_as"] = stack.run_as
    cluster: dict[str, Toml] = {
        "name": CLUSTER,
        "dsn": stack.source_dsn,
        "password_file": stack.password_file,
        "database": DATABASE,
        "tables": [f"{DATABASE}.public.{table}" for table in TABLES],
        "validation_sql": VALIDATION_SQL,
        "schedule": {"full": FULL_SCHEDULE},
    }
    sections = [
        "# Written by `python -m local up`; a stack for one machine, not for production.",
        'profile = "development"',
        _table(
            "[repository]", {"type": "azure", **_account(stack.storage, stack.storage.blob_url)}
        ),
        _table("[queues]", _account(stack.storage, stack.storage.queue_url)),
        _table("[catalogue]", {"dsn": stack.catalogue_dsn}),
        _table("[keys]", _keys(stack.keys)),
        _table("[drill]", drill),
        _table("[[cluster]]", cluster),
    ]
    return "\n\n".join(sections) + "\n"


def host_settings(config: Path, storage: EmulatedAccount, schedules: Mapping[str, str]) -> str:
    """The function app's settings in the form of local.settings.json."""
    emulator = {"accountKey": storage.key}
    if storage.ca_file is not None:
        emulator["caFile"] = str(storage.ca_file)
    values = {
        "PGKEEP_CONFIG": str(config),
        **schedules,
        f"{REPOSITORY_CONNECTION}__blobServiceUri": storage.blob_url,
        f"{REPOSITORY_CONNECTION}__queueServiceUri": storage.queue_url,
        f"{QUEUES_CONNECTION}__queueServiceUri": storage.queue_url,
    }
    for connection in (REPOSITORY_CONNECTION, QUEUES_CONNECTION):
        values |= {f"{connection}__{name}": value for name, value in emulator.items()}
    return json.dumps({"IsEncrypted": False, "Values": values}, indent=2)


def _account(storage: EmulatedAccount, url: str) -> dict[str, Toml]:
    credential: dict[str, Toml] = {"kind": "emulator-key", "account_key": storage.key}
    section: dict[str, Toml] = {"account_url": url, "credential": credential}
    return section if storage.ca_file is None else {**section, "ca_file": storage.ca_file}


def _keys(keys: KeySet) -> dict[str, Toml]:
    return {
        "recipients": [_pem(keys.wrapping.public), _pem(keys.escrow.public)],
        "manifest_recipient": _pem(keys.manifest.public),
        "unwrap": [_pem(pair.private) for pair in _readers(keys)],
        "signing": _pem(keys.signing.private),
        "pinned": [{"path": keys.signing.public}],
    }


def _readers(keys: KeySet) -> tuple[KeyPair, KeyPair]:
    return keys.wrapping, keys.manifest


def _pem(path: Path) -> dict[str, Toml]:
    return {"type": "pem", "path": path}


def _table(header: str, entries: Mapping[str, Toml]) -> str:
    return "\n".join([header, *(f"{key} = {_value(value)}" for key, value in entries.items())])


def _value(value: Toml) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        pairs = (f"{key} = {_value(item)}" for key, item in value.items())
        return "{ " + ", ".join(pairs) + " }"
    return json.dumps(str(value))  # a TOML basic string escapes as JSON does
