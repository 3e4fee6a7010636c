"""Backup labels and cluster names: what they accept, and that labels sort by time."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.backup import BackupFacts, BackupKind, BackupLabel, BackupLabelInvalid
from shared.domain.cluster import ClusterNameInvalid, cluster_name

MOMENTS = st.integers(-30_000_000_000, 250_000_000_000).map(
    lambda seconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=7)
)


@given(MOMENTS, st.sampled_from(BackupKind))
def test_a_label_keeps_its_kind_and_its_second(now: datetime, kind: BackupKind) -> None:
    label = BackupLabel.parse(BackupLabel.new(kind, now).text)
    assert label.kind is kind
    assert label.time == now.replace(microsecond=0)


@given(MOMENTS, MOMENTS)
def test_labels_sort_by_time_whatever_their_kind(one: datetime, other: datetime) -> None:
    first, second = (
        BackupLabel.new(kind, moment)
        for kind, moment in ((BackupKind.INCREMENTAL, one), (BackupKind.FULL, other))
    )
    if first.time != second.time:
        assert (first < second) == (first.time < second.time)


def test_s10_labels_know_leap_days_and_are_utc_whatever_the_zone() -> None:
    late_in_lima = datetime(2028, 2, 28, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    label = BackupLabel.new(BackupKind.FULL, late_in_lima, choose=lambda letters: letters[0])
    assert label.text == "20280229T043000Z-F-aaaa"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20261122T030000Z-F-k3x7\n",
        "\u0662\u0660261122T030000Z-F-k3x7",  # digits, but not ours: they would sort elsewhere
        "20261122T030000Z-X-k3x7",
        "20261122T030000Z-F-K3X7",
        "20270229T030000Z-F-k3x7",
        "20261122T250000Z-F-k3x7",
        "20261122T030000Z-F-k3x7/../x",
    ],
)
def test_a_text_that_is_no_label_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(BackupLabelInvalid) as refused:
        BackupLabel.parse(text)
    assert repr(text) in refused.value.fact


@pytest.mark.parametrize("name", ["a", "prod-1", "0", "a" * 63])
def test_a_cluster_name_is_a_label_of_rfc_1123(name: str) -> None:
    assert cluster_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a/b", "a\n", "ü", "a" * 64])
def test_other_cluster_names_are_refused(name: str) -> None:
    with pytest.raises(ClusterNameInvalid):
        cluster_name(name)


def test_verified_and_proven_are_separate_and_undone_by_a_later_failure() -> None:
    day = [datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2, 3, 4)]
    facts = BackupFacts(day[0], verified_at=day[2], verification_failed_at=day[1])
    assert facts.verified
    assert not facts.proven
    facts = BackupFacts(day[0], verified_at=day[1], proven_at=day[2], drill_failed_at=day[3])
    assert facts.verified
    assert not facts.proven
