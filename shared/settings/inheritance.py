"""How clusters come by a policy, and credentials by an identity: tables laid over tables, before
anything is validated.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from shared.settings.policy import POLICY_SECTIONS

# The variants of a section, or of a key, that call Azure and so take a credential.
_CALLING: Final = ("azure", "arm", "key-vault")


def with_policies(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings, with each `[[cluster]]` spelled out; what is no table stays as it is."""
    clusters = values.get("cluster")
    if not isinstance(clusters, list | tuple):
        return dict(values)
    return {**values, "cluster": [_spelled_out(values, cluster) for cluster in clusters]}


def with_identity(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings, with `[identity]` laid below every credential.

    A cluster and the catalogue log in with a token only where they say `entra`, be it empty.
    """
    identity = values.get("identity")
    if not isinstance(identity, Mapping):
        return dict(values)
    found = dict(values)
    for section in ("repository", "queues", "account"):
        if section in found:
            found[section] = _calling(found[section], identity)
    if isinstance(found.get("keys"), Mapping):
        found["keys"] = {
            name: _each(key, lambda one: _calling(one, identity))
            for name, key in found["keys"].items()
        }
    if "catalogue" in found:
        found["catalogue"] = _logging_in(found["catalogue"], identity)
    if "cluster" in found:
        found["cluster"] = _each(found["cluster"], lambda one: _logging_in(one, identity))
    return found


def _calling(section: Any, identity: Mapping[str, Any]) -> Any:  # noqa: ANN401 - not validated yet
    """Queues are Azure's alone and have no type; pinned keys have none because nobody is asked."""
    if not isinstance(section, Mapping):
        return section
    calls = section.get("type") in _CALLING if "type" in section else "account_url" in section
    return laid_over({"credential": identity}, section) if calls else section


def _logging_in(section: Any, identity: Mapping[str, Any]) -> Any:  # noqa: ANN401 - not validated yet
    if not isinstance(section, Mapping) or "entra" not in section:
        return section
    return laid_over({"entra": identity}, section)


def _each(value: Any, change: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - not validated yet
    return [change(one) for one in value] if isinstance(value, list | tuple) else change(value)


def _spelled_out(values: Mapping[str, Any], cluster: Any) -> Any:  # noqa: ANN401 - not validated yet
    if not isinstance(cluster, dict):
        return cluster
    inherited = _table(values.get("policy"))
    name = cluster.get("policy")
    if name is not None:
        policies = _table(values.get("policies"))
        if name not in policies:
            known = ", ".join(sorted(policies)) or "none"
            raise ValueError(f"no policy {name!r} in the settings (known: {known})")
        inherited = laid_over(inherited, _table(policies[name]))
    own = {key: table for key, table in inherited.items() if key in POLICY_SECTIONS}
    return laid_over(own, cluster)


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` wins; tables on both sides are merged, lists are not."""
    merged = dict(below)
    for key, value in above.items():
        table = merged.get(key)
        if isinstance(table, Mapping) and isinstance(value, Mapping):
            merged[key] = laid_over(table, value)
        else:
            merged[key] = value
    return merged


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
