"""By which policy a run goes: what the settings say, and what earlier runs were told."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from shared.domain.cluster import ClusterName
from shared.domain.kept_backup import RetentionPolicy
from shared.errors import PgkeepError
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.belief import is_unbelievable
from shared.repository.expiry_documents import ExpiryReport, ReportedPolicy
from shared.repository.reports import is_report, read_report
from shared.settings.policy import Retention
from worker.commands.services import Services


def policy_of(retention: Retention) -> RetentionPolicy:
    return RetentionPolicy(
        full_days=retention.full_days,
        incremental_days=retention.incremental_days,
        wal_days=retention.wal_days,
        keep_last=retention.keep_last,
        weekly=retention.weekly,
        monthly=retention.monthly,
        yearly=retention.yearly,
        deletions_per_run=retention.deletions_per_run,
        holds=frozenset(retention.hold),
    )


def reported(policy: RetentionPolicy) -> ReportedPolicy:
    return ReportedPolicy(
        full_days=policy.full_days,
        incremental_days=policy.incremental_days,
        wal_days=policy.wal_days,
        keep_last=policy.keep_last,
        weekly=policy.weekly,
        monthly=policy.monthly,
        yearly=policy.yearly,
        hold=tuple(sorted(policy.holds)),
    )


def earlier_policies(
    services: Services, cluster: ClusterName, at: datetime, days: float
) -> Iterator[RetentionPolicy]:
    """Of runs within so many days, by when the storage got their reports. Raises what it does."""
    begin = at - timedelta(days=days)
    if not days:
        return
    for info in services.store.list(layout.EVIDENCE, layout.expiry_reports_prefix(cluster)):
        if info.modified < begin or not is_report(info.name):
            continue
        try:
            report = read_report(services.store, info.name, services.pinned).report
        except PgkeepError as error:
            if not is_unbelievable(error):
                raise
            log_event("expiry-report-refused", name=str(info.name), code=error.code)
            continue
        if isinstance(report, ExpiryReport) and report.policy is not None:
            yield _policy(report.policy)


def _policy(told: ReportedPolicy) -> RetentionPolicy:
    return RetentionPolicy(
        full_days=told.full_days,
        incremental_days=told.incremental_days,
        wal_days=told.wal_days,
        keep_last=told.keep_last,
        weekly=told.weekly,
        monthly=told.monthly,
        yearly=told.yearly,
        holds=frozenset(told.hold),
    )
