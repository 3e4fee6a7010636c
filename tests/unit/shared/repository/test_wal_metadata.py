"""Metadata beside a WAL blob: read back as written, or not at all."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.lsn import LSN_MAX, Lsn
from shared.domain.restore_point import RestorePoint
from shared.repository.wal_metadata import WalMetadata

KID = "k" + "a" * 26
SHA = "0" * 64
NOON = datetime(2026, 11, 22, 12, 0, 0, 5, tzinfo=UTC)
BARE = WalMetadata(KID, SHA, 16 << 20)
TIMES = st.datetimes(min_value=datetime(2000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
POINTS = st.builds(
    RestorePoint,
    st.integers(0, LSN_MAX).map(Lsn),
    st.text(st.characters(codec="utf-8"), max_size=20),
    TIMES,
)


@given(
    st.integers(0, 1 << 30),
    st.one_of(st.just((None, None)), st.tuples(TIMES, TIMES)),
    st.lists(POINTS, max_size=5).map(tuple),
)
def test_metadata_reads_back_as_it_was_and_storage_can_hold_it(
    size: int,
    commits: tuple[datetime | None, datetime | None],
    points: tuple[RestorePoint, ...],
) -> None:
    metadata = WalMetadata(KID, SHA, size, *commits, points)
    written = metadata.to_blob()
    assert WalMetadata.from_blob(written) == metadata
    assert all(value.isascii() and value.isprintable() and value for value in written.values())
    # Azure gives names back in the spelling of whoever sent them last.
    assert WalMetadata.from_blob({k.upper(): v for k, v in written.items()}) == metadata


@given(st.lists(POINTS, min_size=20, max_size=60).map(tuple))
def test_of_very_many_restore_points_the_first_ones_are_kept(
    points: tuple[RestorePoint, ...],
) -> None:
    written = WalMetadata(KID, SHA, 1, points=points).to_blob()
    assert sum(len(name) + len(value) for name, value in written.items()) <= 4096
    read = WalMetadata.from_blob(written)
    assert read is not None
    assert read.points == points[: len(read.points)]


def test_times_are_written_in_utc() -> None:
    cet = NOON.astimezone(timezone(timedelta(hours=1)))
    written = WalMetadata(KID, SHA, 1, cet, cet).to_blob()
    assert written["first_commit"] == written["last_commit"] == "2026-11-22T12:00:00.000005Z"


@pytest.mark.parametrize(
    "change",
    [
        {"kid": None},
        {"sha256": None},
        {"size": None},
        {"kid": "k7"},
        {"kid": KID + "/../x"},
        {"sha256": "F" * 64},
        {"size": "-1"},
        {"size": "many"},
        {"first_commit": "yesterday"},
        {"last_commit": "2026-11-22T12:00:00+00:00"},
        {"points": "name@0/0"},
        {"points": "name@x@2026-11-22T12:00:00.000005Z"},
        {"points": "name@0/10@never"},
    ],
    ids=str,
)
def test_metadata_that_makes_no_sense_is_none_at_all(change: dict[str, str | None]) -> None:
    changed = {**BARE.to_blob(), **change}
    told = {name: value for name, value in changed.items() if value is not None}
    assert WalMetadata.from_blob(told) is None


@given(st.dictionaries(st.sampled_from([*BARE.to_blob(), "points", "x"]), st.text(max_size=30)))
def test_any_metadata_is_read_or_passed_over(told: dict[str, str]) -> None:
    read = WalMetadata.from_blob(told)
    assert read is None or (read.kid, read.sha256) == (told["kid"], told["sha256"])


def test_metadata_of_a_later_release_is_still_read() -> None:
    assert WalMetadata.from_blob({**BARE.to_blob(), "news": "1"}) == BARE
