"""Ages of backups against what was promised: overdue exactly when, since when, and of whom."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup_freshness import (
    BackupAges,
    Promises,
    backup_findings,
    promised_age,
    rpo_findings,
)
from shared.domain.cluster import cluster_name
from shared.domain.finding_rules import FindingCode
from shared.domain.freshness import WalFreshness
from shared.domain.lsn import Lsn

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
OLD = NOW - 10 * DAY
PROMISES = Promises(committed=26 * HOUR, verified=26 * HOUR, proven=8 * DAY, rpo=5 * HOUR / 60)
FRESH = BackupAges(cluster_name("demo"), NOW - 99 * DAY, NOW - HOUR, NOW - HOUR, NOW - DAY)
SEEN = WalFreshness("demo", NOW, NOW - 9 * DAY, through_lsn=Lsn(7), protected_at=NOW - 9 * HOUR)

ages = st.none() | st.integers(-5, 400).map(lambda hours: NOW - hours * HOUR)
allowed = st.none() | st.integers(1, 300).map(lambda hours: hours * HOUR)
everything = st.builds(
    BackupAges, st.just(cluster_name("demo")), ages.map(lambda at: at or NOW), ages, ages, ages
)
promises = st.builds(Promises, allowed, allowed, allowed, st.just(HOUR))


def codes(seen: BackupAges, promised: Promises = PROMISES, now: datetime = NOW) -> list[str]:
    return [finding.code.value for finding in backup_findings(seen, promised, now)]


def test_what_is_fresh_is_not_spoken_of() -> None:
    assert codes(FRESH) == []


@pytest.mark.parametrize(
    ("seen", "code", "age"),
    [
        (replace(FRESH, committed_at=OLD), FindingCode.BACKUP_OVERDUE, 26 * HOUR),
        (replace(FRESH, verified_at=OLD), FindingCode.VERIFICATION_OVERDUE, 26 * HOUR),
        (replace(FRESH, proven_at=OLD), FindingCode.PROOF_OVERDUE, 8 * DAY),
    ],
)
def test_each_age_has_a_finding_of_its_own_since_the_promise_was_broken(
    seen: BackupAges, code: FindingCode, age: timedelta
) -> None:
    [finding] = backup_findings(seen, PROMISES, NOW)
    assert (finding.code, finding.since) == (code, OLD + age)
    assert "2026-11-12 12:00:00Z: 10 days without one" in finding.fact
    assert finding.evidence["age_hours"] == "240.0"


def test_no_verified_backup_for_26_hours_is_told_to_the_second() -> None:
    at_the_limit = replace(FRESH, verified_at=NOW - 26 * HOUR)
    assert codes(at_the_limit) == []
    assert codes(at_the_limit, now=NOW + timedelta(seconds=1)) == ["verification-overdue"]


def test_a_new_cluster_has_as_much_time_as_an_old_backup() -> None:
    new = BackupAges(cluster_name("demo"), first_seen=NOW - 26 * HOUR)
    assert codes(new) == []
    assert codes(new, now=NOW + HOUR) == ["backup-overdue", "verification-overdue"]


@given(everything, promises, st.integers(0, 99))
def test_time_alone_never_makes_a_promise_kept(
    seen: BackupAges, promised: Promises, hours: int
) -> None:
    assert set(codes(seen, promised)) <= set(codes(seen, promised, NOW + hours * HOUR))


@given(everything, promises)
def test_nobody_is_told_of_what_was_not_promised_and_since_never_lies_ahead(
    seen: BackupAges, promised: Promises
) -> None:
    found = backup_findings(seen, promised, NOW)
    by_code = {
        FindingCode.BACKUP_OVERDUE: promised.committed,
        FindingCode.VERIFICATION_OVERDUE: promised.verified,
        FindingCode.PROOF_OVERDUE: promised.proven,
    }
    assert all(by_code[finding.code] is not None and finding.since < NOW for finding in found)


@given(st.integers(1, 999), st.none() | st.integers(1, 999))
def test_a_schedule_is_never_asked_for_more_than_it_can_keep(
    objective: int, gap: int | None
) -> None:
    promised = promised_age(objective * HOUR, None if gap is None else gap * HOUR)
    if gap is None:
        assert promised is None
    else:
        assert promised is not None
        assert promised >= objective * HOUR
        assert promised > gap * HOUR


def test_commits_that_could_be_lost_break_the_recovery_point_objective() -> None:
    [finding] = rpo_findings(SEEN, PROMISES, NOW)
    assert (finding.code, finding.since) == (FindingCode.RPO_BROKEN, SEEN.protected_at)
    assert finding.evidence == {"lag_seconds": "32400", "rpo_seconds": "300"}
    protected = replace(SEEN, protected_at=NOW - timedelta(seconds=300))
    assert list(rpo_findings(protected, PROMISES, NOW)) == []


def test_a_cluster_without_wal_promises_no_recovery_point() -> None:
    unused = WalFreshness("demo", NOW, NOW - 9 * DAY)
    assert list(rpo_findings(unused, PROMISES, NOW)) == []
    assert list(rpo_findings(None, PROMISES, NOW)) == []


def test_an_archive_that_never_protected_anything_lags_since_the_first_look() -> None:
    [finding] = rpo_findings(replace(SEEN, protected_at=None), PROMISES, NOW)
    assert finding.since == SEEN.watched_since
