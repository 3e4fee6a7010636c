"""The part of Azure Resource Manager in a stack: a file that says what the account would do.

The emulator enforces none of it: it knows no lifecycle, no immutability, no versions. The guard
judges what the file says all the same, as it would judge Azure's answers.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Recording = dict[str, Any]

# Longer than the stack's retention (28, 7 and 28 days), and not locked: nobody locks an account
# that is thrown away, and a locked policy would make any planted rule harmless.
_IMMUTABLE_DAYS: Mapping[str, int] = {"full": 35, "incremental": 14, "wal": 35, "evidence": 400}
_BACKSTOP_DAYS = 400


def write_policies(path: Path) -> None:
    """What an account in good order has; the guard finds nothing wrong with it."""
    backstop = lifecycle_rule(
        "far-backstop",
        prefixes=["full/", "incremental/", "wal/"],
        delete={"daysAfterModificationGreaterThan": _BACKSTOP_DAYS},
    )
    recording = {
        "managementPolicy": {"properties": {"policy": {"rules": [backstop]}}},
        "blobService": {
            "properties": {
                "isVersioningEnabled": True,
                "deleteRetentionPolicy": {"enabled": True, "days": 14},
            }
        },
        "containers": [_container(name, days) for name, days in _IMMUTABLE_DAYS.items()],
    }
    _replace(path, recording)


def plant_lifecycle_rule(
    path: Path, name: str, *, prefixes: list[str], delete_after_days: float
) -> None:
    """A rule as somebody might add it to save money; the guard's next look sees it."""
    planted = lifecycle_rule(
        name,
        prefixes=prefixes,
        delete={"daysAfterModificationGreaterThan": delete_after_days},
    )
    _change_rules(path, lambda rules: [*_without(rules, name), planted])


def lift_lifecycle_rule(path: Path, name: str) -> None:
    """Take the rule away again; nothing happens when it is not there."""
    _change_rules(path, lambda rules: _without(rules, name))


def lifecycle_rule(
    name: str, *, prefixes: list[str], **actions: Mapping[str, float]
) -> dict[str, Any]:
    """In Resource Manager's words; `actions` are those on the base blob, by their name."""
    return {
        "enabled": True,
        "name": name,
        "type": "Lifecycle",
        "definition": {
            "filters": {"blobTypes": ["blockBlob"], "prefixMatch": prefixes},
            "actions": {"baseBlob": actions},
        },
    }


def _container(name: str, days: int) -> dict[str, Any]:
    policy = {"immutabilityPeriodSinceCreationInDays": days, "state": "Unlocked"}
    return {"name": name, "properties": {"immutabilityPolicy": {"properties": policy}}}


def _without(rules: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [rule for rule in rules if rule["name"] != name]


def _change_rules(
    path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    recording: Recording = json.loads(path.read_text("utf-8"))
    policy = recording["managementPolicy"]["properties"]["policy"]
    policy["rules"] = change(policy["rules"])
    _replace(path, recording)


def _replace(path: Path, recording: Recording) -> None:
    """At once: the functions host may be reading."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(recording, indent=2) + "\n", "utf-8")
    new.replace(path)
