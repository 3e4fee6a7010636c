"""The guard over what holds for a whole account: is every container with backups immutable?"""

from collections.abc import Iterator, Mapping
from datetime import datetime

from shared.domain.finding_rules import FindingCode
from shared.domain.findings import Finding
from shared.domain.lifecycle_rules import ContainerPolicy, PolicySnapshot


def judge_account(
    policies: PolicySnapshot,
    wanted_days: Mapping[str, float],
    now: datetime,
    *,
    locked: bool,
) -> tuple[Finding, ...]:
    """`wanted_days`: by container, the longest retention. `locked`: whether policies must be."""
    found = (
        _of_container(policies, container, days, now, locked=locked)
        for container, days in sorted(wanted_days.items())
    )
    return tuple(finding for findings in found for finding in findings)


def _of_container(
    policies: PolicySnapshot, container: str, days: float, now: datetime, *, locked: bool
) -> Iterator[Finding]:
    policy = policies.container(container)
    evidence = _evidence(policies, policy) | {"wanted_days": f"{days:g}"}
    if policy.immutability_days is None:
        if not policy.legal_holds:
            fact = f"container {container} has no time-based retention policy"
            yield Finding(FindingCode.POLICY_MISSING, container, now, fact, evidence)
    elif locked and not policy.locked:
        fact = f"the retention policy of container {container} is not locked: it can be withdrawn"
        yield Finding(FindingCode.POLICY_MISSING, container, now, fact, evidence)
    if policy.immutability_days is not None and policy.immutability_days < days:
        fact = (
            f"blobs of container {container} are immutable for {policy.immutability_days} days, "
            f"retention keeps them for {days:g}"
        )
        yield Finding(FindingCode.IMMUTABILITY_SHORTER, container, now, fact, evidence)


def _evidence(policies: PolicySnapshot, policy: ContainerPolicy) -> dict[str, str]:
    protection = policies.protection
    evidence = {
        "versioning": "on" if protection.versioning else "off",
        "soft_delete_days": str(protection.soft_delete_days),
        "locked": "yes" if policy.locked else "no",
    }
    if policy.immutability_days is not None:
        evidence["immutability_days"] = str(policy.immutability_days)
    if policy.legal_holds:
        evidence["legal_holds"] = ", ".join(policy.legal_holds)
    if policy.version_level:
        evidence["version_level"] = "yes"
    return evidence
