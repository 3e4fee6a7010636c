"""The guard at its posts: when a backup was committed, and each hour over all clusters.

A critical finding of the guard also keeps `expire` from being started for its cluster: while Azure
is about to delete what stands, nothing else is deleted.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from functions.finding_news import tell
from functions.wiring import Services
from shared.domain.account_guard import judge_account
from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName, cluster_name
from shared.domain.finding_rules import FindingCode, FindingScope
from shared.domain.findings import REPOSITORY, Finding
from shared.domain.lifecycle_guard import (
    ACCOUNT,
    ArchivedBackup,
    Need,
    Threat,
    judge_lifecycle,
    what_would_go,
)
from shared.domain.lifecycle_rules import PolicySnapshot
from shared.errors import PgkeepError
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.guarded_blobs import (
    archived_anywhere,
    archived_of,
    folders_of,
    needs_of,
)
from shared.repository.layout import BackupRef
from shared.settings import AzureRepository, ClusterSettings

# Clusters whose backups are held in memory together.
_AT_ONCE: Final = 500
_GUARD: Final = (FindingScope.GUARD,)


def guard_backup(services: Services, ref: BackupRef) -> None:
    """Judge the cluster of a backup that was just recorded. Opens findings, closes none.

    Trouble is logged and never raised: the hourly look makes up for it, and a backup is taken in
    whether its account can be read or not.
    """
    try:
        _guard(services, ref)
    except PgkeepError as error:
        level, fact = logging.ERROR, error.fact
        log_event("guard-failed", level=level, cluster=ref.cluster, code=error.code, fact=fact)


def watch_guard(services: Services) -> None:
    """Judge the account, and each cluster that its rules concern. Raises what the catalogue does.

    While the policies cannot be read, findings stay as they are: nobody knows better.
    """
    began = services.clock()
    policies = _seen_policies(services)
    if policies is None:
        return
    found = judge_account(
        policies,
        _wanted_days(services.settings.cluster),
        began,
        locked=services.settings.profile == "production",
    )
    tell(services, REPOSITORY, services.catalogue.settle_findings(REPOSITORY, _GUARD, found, began))
    _watch_clusters(services, policies, began)


def threats(services: Services, cluster: ClusterSettings) -> tuple[Threat, ...]:
    """What Azure would delete of the cluster although it is needed, the earliest first.

    Raises AccountPoliciesDenied, AccountPoliciesUnavailable; empty without a section [account].
    """
    if services.policies is None:
        return ()
    needs = _needs(services, cluster, services.clock())
    return what_would_go(services.policies.read(), needs)


def _watch_clusters(services: Services, policies: PolicySnapshot, began: datetime) -> None:
    """Those that rules or archived blobs concern, and those of which something is open."""
    archived = _by_cluster(archived_anywhere(services.store))
    known = _open(services)
    concerned = [
        (name, cluster)
        for cluster in services.settings.cluster
        if (name := cluster_name(cluster.name)) in archived
        or name in known
        or _concerns(policies, name)
    ]
    for start in range(0, len(concerned), _AT_ONCE):
        group = concerned[start : start + _AT_ONCE]
        backups = services.catalogue.guarded_backups([name for name, _ in group])
        for name, cluster in group:
            needs = needs_of(name, backups.get(name, ()), cluster.retention, began)
            found = judge_lifecycle(policies, needs, archived.get(name, ()), began)
            if _said(found) != _said(known.get(name, ())):
                tell(services, name, services.catalogue.settle_findings(name, _GUARD, found, began))


def _open(services: Services) -> Mapping[ClusterName, Sequence[Finding]]:
    """Ours, by cluster."""
    found: dict[ClusterName, list[Finding]] = {}
    for one in services.catalogue.findings():
        if one.finding.scope in _GUARD:
            found.setdefault(one.cluster, []).append(one.finding)
    return found


def _said(findings: Iterable[Finding]) -> dict[tuple[str, str], tuple[str, Mapping[str, str]]]:
    """What they say: where that stays the same, the catalogue need not hear it each hour."""
    return {one.key: (one.fact, one.evidence) for one in findings}


def _guard(services: Services, ref: BackupRef) -> None:
    cluster = _settings_of(services, ref.cluster)
    policies = _seen_policies(services)
    if policies is None or cluster is None:
        return
    now = services.clock()
    archived = _by_cluster(archived_of(services.store, ref)).get(ref.cluster, ())
    found = judge_lifecycle(policies, _needs(services, cluster, now), archived, now)
    tell(services, ref.cluster, services.catalogue.open_findings(ref.cluster, found, now))


def _seen_policies(services: Services) -> PolicySnapshot | None:
    """None when nobody can read them; that is a finding, but for a repository in a directory."""
    if services.policies is None:
        if isinstance(services.settings.repository, AzureRepository):
            _be_blind(services, "the settings have no section [account]")
        return None
    try:
        return services.policies.read()
    except PgkeepError as error:
        _be_blind(services, str(error))
        return None


def _be_blind(services: Services, fact: str) -> None:
    now = services.clock()
    found = Finding(FindingCode.GUARD_BLIND, ACCOUNT, now, fact)
    tell(services, REPOSITORY, services.catalogue.open_findings(REPOSITORY, [found], now))


def _concerns(policies: PolicySnapshot, cluster: ClusterName) -> bool:
    return any(any(policies.touching(folder)) for folder in folders_of(cluster))


def _needs(services: Services, cluster: ClusterSettings, now: datetime) -> tuple[Need, ...]:
    name = cluster_name(cluster.name)
    backups = services.catalogue.guarded_backups([name]).get(name, ())
    return needs_of(name, backups, cluster.retention, now)


def _by_cluster(archived: Mapping[BackupRef, int]) -> dict[ClusterName, list[ArchivedBackup]]:
    found: dict[ClusterName, list[ArchivedBackup]] = {}
    for ref, blobs in archived.items():
        found.setdefault(ref.cluster, []).append(ArchivedBackup(ref.label, blobs))
    return found


def _settings_of(services: Services, name: ClusterName) -> ClusterSettings | None:
    """None for a cluster that only the repository knows: no policy says what is needed of it."""
    return next((one for one in services.settings.cluster if one.name == name), None)


def _wanted_days(clusters: Collection[ClusterSettings]) -> dict[str, float]:
    """By container, what the most demanding cluster keeps; keys and reports as long as any."""
    kept = [one.retention for one in clusters]
    if not kept:
        return {}
    days = {
        BackupKind.FULL.value: max(one.full_days for one in kept),
        BackupKind.INCREMENTAL.value: max(one.incremental_days for one in kept),
        layout.WAL: max(one.wal_days for one in kept),
    }
    return {**days, layout.EVIDENCE: max(days.values())}
