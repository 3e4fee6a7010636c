"""To which instant a drill goes, in words, and by chance."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.drill_target import (
    AnyInstant,
    GivenInstant,
    instant_between,
    parse_drill_target,
)
from shared.domain.recovery_target import RecoveryTargetInvalid

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2900, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone


def test_the_words_and_a_time_with_its_offset_are_read() -> None:
    assert parse_drill_target("latest") is AnyInstant.LATEST
    assert parse_drill_target("random") is AnyInstant.RANDOM
    assert parse_drill_target("2026-11-22T13:00:00+01:00") == GivenInstant(NOON)


@given(TIMES)
def test_an_instant_is_read_back_as_it_was_written(time: datetime) -> None:
    assert parse_drill_target(str(GivenInstant(time))) == GivenInstant(time)


@pytest.mark.parametrize("text", ["", "newest", "LATEST", "2026-11-22T12:00:00", "12:00Z"])
def test_anything_else_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(RecoveryTargetInvalid) as refused:
        parse_drill_target(text)
    assert "--to-" not in refused.value.advice


@given(
    TIMES,
    st.timedeltas(timedelta(microseconds=1), timedelta(days=400)),
    st.binary(min_size=8, max_size=8),
)
def test_chance_chooses_within_the_window_and_never_its_end(
    start: datetime, length: timedelta, chance: bytes
) -> None:
    assert start <= instant_between(start, start + length, chance) < start + length


def test_chance_reaches_both_ends_and_the_middle() -> None:
    end = NOON + timedelta(hours=1)
    assert instant_between(NOON, end, bytes(8)) == NOON
    assert instant_between(NOON, end, b"\x80" + bytes(7)) == NOON + timedelta(minutes=30)
    assert instant_between(NOON, end, b"\xff" * 8) == end - timedelta(microseconds=1)
