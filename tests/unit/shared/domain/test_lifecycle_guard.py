"""The guard's judgement: which rules hurt what is needed, how badly, and from which day on."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.account_guard import judge_account
from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.cluster import cluster_name
from shared.domain.finding_rules import FindingCode, Severity
from shared.domain.findings import Finding
from shared.domain.lifecycle_guard import ArchivedBackup, judge_lifecycle, what_would_go
from shared.domain.lifecycle_rules import (
    AccountProtection,
    AgeCondition,
    ContainerPolicy,
    LifecycleAction,
    LifecycleRule,
    PolicySnapshot,
)
from shared.domain.needed_until import GuardedBackup
from shared.repository.guarded_blobs import folders_of, needs_of
from shared.settings import Retention

DAY = timedelta(days=1)
SUNDAY = datetime(2026, 11, 1, 3, tzinfo=UTC)
NOW = SUNDAY + 3 * DAY
ORDERS = cluster_name("orders")
# So that age alone decides; what the promised WAL adds is tried with needed_until.
TERMS = Retention(wal_days=20)
FULL = BackupLabel.new(BackupKind.FULL, SUNDAY, lambda letters: letters[0])
MONDAY, TUESDAY = (
    BackupLabel.new(BackupKind.INCREMENTAL, SUNDAY + day * DAY, lambda letters: letters[0])
    for day in (1, 2)
)
CHAIN = (GuardedBackup(FULL), GuardedBackup(MONDAY, FULL), GuardedBackup(TUESDAY, MONDAY))
NEEDS = needs_of(ORDERS, CHAIN, TERMS, NOW)
PARENT, BACKUP, KEYS = (
    FindingCode.LIFECYCLE_WOULD_DELETE_PARENT,
    FindingCode.LIFECYCLE_WOULD_DELETE_BACKUP,
    FindingCode.LIFECYCLE_WOULD_DELETE_KEYS,
)
TIERED = FindingCode.TIERED_TOO_EARLY
Found = list[tuple[FindingCode, str]]


def deleting(days: float, *prefixes: str, name: str = "old") -> LifecycleRule:
    return LifecycleRule(
        name, {LifecycleAction.DELETE: AgeCondition(modification=days)}, prefixes=prefixes
    )


def archiving(days: float, *prefixes: str) -> LifecycleRule:
    return LifecycleRule(
        "cold", {LifecycleAction.ARCHIVE: AgeCondition(modification=days)}, prefixes=prefixes
    )


def judged(
    *rules: LifecycleRule, archived: Sequence[ArchivedBackup] = (), **containers: ContainerPolicy
) -> tuple[Finding, ...]:
    return judge_lifecycle(PolicySnapshot(rules, containers), NEEDS, archived, NOW)


def told(findings: Sequence[Finding]) -> Found:
    return sorted((one.code, one.object) for one in findings)


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (deleting(400), [(KEYS, "old/evidence/keys")]),  # cluster.json is needed for good
        (deleting(28, "full/"), []),  # no sooner than retention
        (deleting(27, "full/"), [(PARENT, "old/full/parent")]),
        (deleting(27, "full/orders/"), [(PARENT, "old/full/parent")]),
        (deleting(1, "full/other/"), []),
        (deleting(1, "full/orders/20250101"), []),  # older backups are needed no more
        (deleting(1, "state/"), []),  # leases may go
        (
            deleting(6, "incremental/"),
            [(BACKUP, "old/incremental/backup"), (PARENT, "old/incremental/parent")],
        ),
        (deleting(7.5, "incremental/"), [(PARENT, "old/incremental/parent")]),
        (deleting(8, "incremental/"), []),
        (deleting(20, "wal/"), [(BACKUP, "old/wal/wal")]),
        (deleting(28, "wal/"), []),
        (deleting(20, "evidence/orders/keys/"), [(KEYS, "old/evidence/keys")]),
        (deleting(28.5, "evidence/orders/keys/"), [(KEYS, "old/evidence/keys")]),
        (deleting(32, "evidence/orders/keys/"), []),  # a day more, for keys older than their WAL
        (deleting(9999, "evidence/orders/cluster"), [(KEYS, "old/evidence/keys")]),
        (deleting(20, "evidence/orders/verif"), [(BACKUP, "old/evidence/reports")]),
        (deleting(20, "evidence/orders/drills/"), [(BACKUP, "old/evidence/reports")]),
        (archiving(400), [(TIERED, "cold/evidence/keys")]),
        (archiving(20, "full/"), [(TIERED, "cold/full/parent")]),
        (archiving(28, "full/"), []),
    ],
)
def test_a_rule_that_acts_before_its_time_is_found(rule: LifecycleRule, found: Found) -> None:
    assert told(judged(rule)) == sorted(found)


def test_the_finding_names_rule_day_and_everything_that_would_be_lost() -> None:
    [finding] = judged(deleting(10, "full/"), full=ContainerPolicy(14))
    assert finding.severity is Severity.CRITICAL
    assert finding.fact == (
        "from 2026-11-11 on lifecycle rule 'old' can delete backups that others stand on, "
        "in container full"
    )
    assert finding.evidence == {
        "rule": "old",
        "container": "full",
        "from": "2026-11-11",
        "needed_until": "2026-11-29",
        "labels": f"{FULL}, {MONDAY}, {TUESDAY}",
        "versioning": "off",
        "soft_delete_days": "0",
        "unlocked_immutability_days": "14",
    }


def test_of_many_labels_some_are_told() -> None:
    fulls = [
        GuardedBackup(BackupLabel.new(BackupKind.FULL, SUNDAY + n * DAY / 9, lambda _: "a"))
        for n in range(25)
    ]
    needs = needs_of(ORDERS, fulls, TERMS, NOW)
    [finding] = judge_lifecycle(PolicySnapshot((deleting(1, "full/"),)), needs, (), NOW)
    assert finding.evidence["labels"].count("Z-F-") == 10
    assert finding.evidence["labels"].endswith(" and 15 more")


def test_a_locked_policy_or_a_legal_hold_keeps_what_a_rule_would_delete() -> None:
    rule = deleting(1, "full/")
    assert told(judged(rule, full=ContainerPolicy(28, locked=True))) == []
    assert told(judged(rule, full=ContainerPolicy(legal_holds=("case42",)))) == []
    [finding] = judged(rule, full=ContainerPolicy(20, locked=True))
    assert finding.evidence["from"] == "2026-11-21"
    assert told(judged(archiving(1, "full/"), full=ContainerPolicy(28, locked=True))) != []


def test_keys_are_critical_and_a_lone_backup_is_not() -> None:
    findings = {one.code: one.severity for one in judged(deleting(2))}
    assert findings[KEYS] is findings[PARENT] is Severity.CRITICAL
    assert findings[BACKUP] is Severity.ERROR


def test_an_archived_blob_costs_the_hours_of_its_rehydration() -> None:
    gone = BackupLabel.parse("20250101T030000Z-F-aaaa")
    archived = [ArchivedBackup(MONDAY, 2), ArchivedBackup(FULL, 5), ArchivedBackup(gone, 1)]
    [finding] = judged(archived=archived)
    assert (finding.code, finding.severity) == (TIERED, Severity.ERROR)
    assert finding.evidence == {
        "labels": f"{FULL}, {MONDAY}",
        "blobs": "7",
        "rehydration_hours": "15",
    }
    assert told(judged(archived=[ArchivedBackup(gone, 1)])) == []


def test_the_hours_of_rehydration_count_from_the_day_that_the_rule_acts() -> None:
    [yet_to_come] = judged(archiving(4, "full/"))
    [under_way] = judged(archiving(3, "full/"))
    assert yet_to_come.evidence["rehydration_hours_then"] == "15"
    assert under_way.evidence["rehydration_hours"] == "15"
    assert "rehydration_hours" not in yet_to_come.evidence


def test_what_one_rule_deletes_it_does_not_archive_first() -> None:
    both = {
        LifecycleAction.ARCHIVE: AgeCondition(modification=10),
        LifecycleAction.DELETE: AgeCondition(modification=10),
    }
    assert told(judged(LifecycleRule("both", both, prefixes=("full/",)))) == [
        (PARENT, "both/full/parent")
    ]
    kept = ContainerPolicy(28, locked=True)
    assert told(judged(LifecycleRule("both", both, prefixes=("full/",)), full=kept)) == [
        (TIERED, "both/full/parent")
    ]


def test_of_several_rules_the_earliest_day_counts() -> None:
    rules = (deleting(20, "full/", name="slow"), deleting(9, "full/o", name="quick"))
    [first] = what_would_go(PolicySnapshot((*rules, archiving(1))), NEEDS)
    assert (first.rule.name, first.at) == ("quick", SUNDAY + 9 * DAY)
    assert (first.need.prefix, first.need.carries) == (
        f"full/orders/{FULL}/",
        (FULL, MONDAY, TUESDAY),
    )


def test_a_cluster_without_backups_is_promised_its_log_only() -> None:
    needs = needs_of(ORDERS, (), TERMS, NOW)
    findings = judge_lifecycle(PolicySnapshot((deleting(5),)), needs, (), NOW)
    assert told(findings) == [(BACKUP, "old/wal/wal")]


RULES = st.builds(
    LifecycleRule,
    name=st.sampled_from(["a", "b", "c"]),
    actions=st.dictionaries(
        st.sampled_from(LifecycleAction),
        st.builds(
            AgeCondition,
            modification=st.none() | st.integers(0, 60),
            last_access=st.none() | st.integers(0, 60),
            tier_change=st.none() | st.integers(0, 60),
        ),
    ),
    enabled=st.booleans(),
    prefixes=st.lists(
        st.sampled_from(["full", "full/orders/2", "incremental/", "wal/orders/", "evidence", "x"]),
        max_size=2,
    ).map(tuple),
    blob_types=st.sampled_from([("blockBlob",), ("appendBlob",)]),
)
POLICIES = st.dictionaries(
    st.sampled_from(["full", "incremental", "wal", "evidence"]),
    st.builds(ContainerPolicy, st.none() | st.integers(1, 40), st.booleans()),
)
TRACKED = st.builds(AccountProtection, access_tracked=st.booleans())


@given(rules=st.lists(RULES, max_size=4), more=RULES, containers=POLICIES, protection=TRACKED)
def test_one_rule_more_never_hides_a_finding(
    rules: list[LifecycleRule],
    more: LifecycleRule,
    containers: dict[str, ContainerPolicy],
    protection: AccountProtection,
) -> None:
    before = PolicySnapshot(tuple(rules), containers, protection)
    after = PolicySnapshot((*rules, more), containers, protection)
    found, then = (
        set(told(judge_lifecycle(policies, NEEDS, (), NOW))) for policies in (before, after)
    )
    assert found <= then


@given(rules=st.lists(RULES, max_size=4), containers=POLICIES, longer=st.integers(0, 60))
def test_a_longer_immutability_never_deletes_more_or_sooner(
    rules: list[LifecycleRule], containers: dict[str, ContainerPolicy], longer: int
) -> None:
    extended = {
        name: ContainerPolicy((one.immutability_days or 0) + longer, locked=True)
        for name, one in containers.items()
    }
    before, after = (
        {one.need: one.at for one in what_would_go(PolicySnapshot(tuple(rules), kept), NEEDS)}
        for kept in (containers, extended)
    )
    assert all(at >= before[need] for need, at in after.items())


@given(rules=st.lists(RULES, max_size=3), containers=POLICIES)
def test_rules_that_touch_no_folder_of_a_cluster_never_make_a_finding(
    rules: list[LifecycleRule], containers: dict[str, ContainerPolicy]
) -> None:
    """So the hourly look may pass such clusters over without asking for their backups."""
    policies = PolicySnapshot(tuple(rules), containers)
    if not any(any(policies.touching(folder)) for folder in folders_of(ORDERS)):
        assert judge_lifecycle(policies, NEEDS, (), NOW) == ()


class TestAccount:
    DAYS = {"full": 28.0, "incremental": 7.0}  # noqa: RUF012 - never changed

    def judged(self, *, locked: bool = True, **containers: ContainerPolicy) -> Found:
        return told(judge_account(PolicySnapshot((), containers), self.DAYS, NOW, locked=locked))

    @pytest.mark.parametrize(
        ("full", "found"),
        [
            (ContainerPolicy(28, locked=True), []),
            (ContainerPolicy(27, locked=True), [FindingCode.IMMUTABILITY_SHORTER]),
            (ContainerPolicy(), [FindingCode.POLICY_MISSING]),
            (ContainerPolicy(legal_holds=("case42",)), []),
            (ContainerPolicy(28), [FindingCode.POLICY_MISSING]),
            (ContainerPolicy(27), [FindingCode.IMMUTABILITY_SHORTER, FindingCode.POLICY_MISSING]),
        ],
    )
    def test_a_container_is_immutable_for_as_long_as_backups_are_kept(
        self, full: ContainerPolicy, found: list[FindingCode]
    ) -> None:
        incremental = ContainerPolicy(7, locked=True)
        assert self.judged(full=full, incremental=incremental) == [(code, "full") for code in found]

    def test_in_development_a_policy_need_not_be_locked(self) -> None:
        assert (
            self.judged(locked=False, full=ContainerPolicy(35), incremental=ContainerPolicy(7))
            == []
        )

    def test_the_finding_says_what_else_would_help(self) -> None:
        protection = AccountProtection(versioning=True, soft_delete_days=14)
        policies = PolicySnapshot((), {"full": ContainerPolicy(version_level=True)}, protection)
        [finding] = judge_account(policies, {"full": 28}, NOW, locked=True)
        assert finding.evidence == {
            "versioning": "on",
            "soft_delete_days": "14",
            "locked": "no",
            "version_level": "yes",
            "wanted_days": "28",
        }
