"""Bicep's functions, as far as infra/ calls them.

https://learn.microsoft.com/azure/azure-resource-manager/bicep/bicep-functions
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from itertools import islice
from typing import Any, Final

# Made up, and of the right form.
TENANT: Final = "11111111-1111-4111-8111-111111111111"
SUBSCRIPTION: Final = "22222222-2222-4222-8222-222222222222"
_GROUP: Final = {"id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/group", "name": "group"}


def UNKNOWN(name: str, *arguments: object) -> str:  # noqa: N802 - the value for what Azure computes
    """What only Azure computes: always the same text for the same arguments."""
    return f"{name}({', '.join(map(str, arguments))})"


def _hash(*parts: object) -> str:
    """As long as Bicep's: thirteen letters and digits."""
    return "u" + hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:12]


def _items(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value[key]} for key in sorted(value)]


def _union(*values: Any) -> Any:
    if all(isinstance(value, Mapping) for value in values):
        return {key: item for value in values for key, item in value.items()}
    return [item for value in values for item in value]


def _cidr_subnet(network: str, prefix: int, index: int) -> str:
    return str(next(islice(ip_network(network).subnets(new_prefix=prefix), index, None)))


def _replace(text: str, old: str, new: str) -> str:
    return text.replace(old, new)


def _take(value: Sequence[Any], count: int) -> Sequence[Any]:
    return value[:count]


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "cidrSubnet": _cidr_subnet,
    "concat": lambda *values: (
        "".join(values)
        if isinstance(values[0], str)
        else [one for value in values for one in value]
    ),
    "contains": lambda whole, part: part in whole,
    "empty": lambda value: not value,
    "endsWith": lambda text, end: text.endswith(end),
    "environment": lambda: {
        "suffixes": {"storage": "core.windows.net"},
        "authentication": {"loginEndpoint": "https://login.microsoftonline.com/"},
        "resourceManager": "https://management.azure.com/",
    },
    "int": int,
    "items": _items,
    "join": lambda values, between: between.join(values),
    "json": json.loads,
    "length": len,
    "loadTextContent": lambda path: f"content of {path}",
    "max": max,
    "min": min,
    "replace": _replace,
    "resourceGroup": lambda: _GROUP,
    "resourceId": lambda kind, *names: f"{kind}:{'/'.join(names)}",
    "split": lambda text, between: text.split(between),
    "startsWith": lambda text, begin: text.startswith(begin),
    "string": lambda value: value if isinstance(value, str) else json.dumps(value),
    "subscription": lambda: {
        "id": f"/subscriptions/{SUBSCRIPTION}",
        "subscriptionId": SUBSCRIPTION,
    },
    "subscriptionResourceId": lambda kind, name: f"{kind}/{name}",
    "take": _take,
    "tenant": lambda: {"tenantId": TENANT},
    "toLower": str.lower,
    "toUpper": str.upper,
    "union": _union,
    "uniqueString": _hash,
}
