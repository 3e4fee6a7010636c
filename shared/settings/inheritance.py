"""How a cluster comes by its policy: tables laid over tables, before anything is validated."""

from collections.abc import Mapping
from typing import Any

from shared.settings.policy import POLICY_SECTIONS


def with_policies(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings, with each `[[cluster]]` spelled out; what is no table stays as it is."""
    clusters = values.get("cluster")
    if not isinstance(clusters, list | tuple):
        return dict(values)
    return {**values, "cluster": [_spelled_out(values, cluster) for cluster in clusters]}


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
