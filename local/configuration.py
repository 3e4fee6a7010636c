"""Writes what the stack's programs read: `pgkeep.toml` with its keys, and the host's settings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local.azurite import EmulatedAccount
from local.document_database import heartbeat
from local.document_database.load import TABLES, VALIDATION_SQL
from shared.settings import Schedule
from worker.keys.generate import KeyPair, KeySet

CLUSTER = "main"
DATABASE = "documents"
FULL_SCHEDULE = "0 3 * * 0"
# Nobody watches a demo for the ten seconds and the minute that are the defaults.
_FLUSH_S = 1
_REPORT_S = 5
# The names that the triggers of functions/ give to their connections.
REPOSITORY_CONNECTION = "PGKEEP_HOST_REPOSITORY"
QUEUES_CONNECTION = "PGKEEP_HOST_QUEUES"

Toml = str | bool | int | float | Path | list["Toml"] | Mapping[str, "Toml"]


@dataclass(frozen=True, slots=True)
class StackConfiguration:
    """What differs from stack to stack. `run_as` is the account for PostgreSQL when we are root."""

    source_dsn: str
    password_file: Path
    catalogue_dsn: str
    storage: EmulatedAccount
    keys: KeySet
    access_public_key: Path
    scratch: Path
    wal_socket: Path
    wal_spool: Path
    programs: Path
    account_policies: Path
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
        "heartbeat": f"{DATABASE}.{heartbeat.TABLE}",
        # All else comes when somebody asks: a stack shows the same at whatever hour it is used.
        "schedule": {**dict.fromkeys(Schedule.model_fields, False), "full": FULL_SCHEDULE},
        "wal": {"flush_seconds": _FLUSH_S},
    }
    wal: dict[str, Toml] = {
        "socket": stack.wal_socket,
        "spool": stack.wal_spool,
        "report_seconds": _REPORT_S,
    }
    sections = [
        "# Written by `python -m local up`; a stack for one machine, not for production.",
        'profile = "development"',
        toml_table(
            "[repository]",
            {"type": "azure", **account_section(stack.storage, stack.storage.blob_url)},
        ),
        toml_table("[account]", {"type": "recorded", "path": stack.account_policies}),
        toml_table("[queues]", account_section(stack.storage, stack.storage.queue_url)),
        toml_table("[catalogue]", {"dsn": stack.catalogue_dsn}),
        toml_table("[access]", {"type": "local", "public_key": stack.access_public_key}),
        toml_table("[keys]", keys_section(stack.keys)),
        toml_table("[wal]", wal),
        toml_table("[drill]", drill),
        toml_table("[[cluster]]", cluster),
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


def account_section(storage: EmulatedAccount, url: str) -> dict[str, Toml]:
    """How to reach one of the emulator's services."""
    credential: dict[str, Toml] = {"kind": "emulator-key", "account_key": storage.key}
    section: dict[str, Toml] = {"account_url": url, "credential": credential}
    return section if storage.ca_file is None else {**section, "ca_file": storage.ca_file}


def keys_section(keys: KeySet) -> dict[str, Toml]:
    """Of somebody who does everything: writes, signs, reads."""
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


def toml_table(header: str, entries: Mapping[str, Toml]) -> str:
    """A table of a TOML file, one line for each entry."""
    return "\n".join([header, *(f"{key} = {_value(value)}" for key, value in entries.items())])


def _value(value: Toml) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        pairs = (f"{key} = {_value(item)}" for key, item in value.items())
        return "{ " + ", ".join(pairs) + " }"
    return json.dumps(str(value))  # a TOML basic string escapes as JSON does
