"""Targets of a recovery as people write them: times, transactions, names."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.lsn import Lsn
from shared.domain.recovery_target import (
    RecoveryTarget,
    RecoveryTargetInvalid,
    ToImmediate,
    ToLatest,
    ToLsn,
    ToName,
    ToTime,
    ToXid,
    parse_point,
    parse_time,
    parse_xid,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T12:00:00Z",
        "2026-11-22 12:00:00+00:00",
        "2026-11-22T13:00:00+01:00",
        "20261122T120000Z",
        "2026-11-22T04:00-08:00",
        "2026-11-23T01:30:00.000000+13:30",
    ],
)
def test_a_time_with_an_offset_is_an_instant(text: str) -> None:
    assert parse_time(text) == NOON
    assert parse_time(text).utcoffset() == timedelta(0)


@given(st.datetimes(timezones=st.timezones(), min_value=datetime(1980, 1, 1)))  # noqa: DTZ001 - hypothesis adds the zone
def test_every_time_that_names_its_offset_is_read_exactly(time: datetime) -> None:
    assert parse_time(time.isoformat()) == time.astimezone(UTC)


@pytest.mark.parametrize("text", ["2026-11-22T12:00:00", "2026-11-22", "2026-10-25T02:30:00"])
def test_r18_a_time_without_an_offset_is_refused_with_what_to_write(text: str) -> None:
    """The third one happened twice in Europe."""
    with pytest.raises(RecoveryTargetInvalid, match="no offset") as refused:
        parse_time(text)
    [(in_utc, ahead)] = re.findall(r"^Write (\S+) for UTC, or (\S+) for", refused.value.advice)
    assert parse_time(in_utc) == datetime.fromisoformat(text).replace(tzinfo=UTC)
    assert parse_time(ahead) == parse_time(in_utc) - timedelta(hours=1)


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+00:01"])
def test_a_time_that_utc_cannot_say_is_refused(text: str) -> None:
    with pytest.raises(RecoveryTargetInvalid, match="beyond the years"):
        parse_time(text)


@pytest.mark.parametrize(
    "text",
    ["", "noon", "yesterday", "2026-02-30T12:00:00Z", "2026-11-22T25:00:00Z", "12:00:00Z", "0"],
)
def test_r18_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(RecoveryTargetInvalid, match="is not a time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "xid"),
    [
        ("3", 3),
        ("1234", 1234),
        ("4294967295", 2**32 - 1),
        ("4294968530", 2**32 + 1234),  # epoch 1
        (str(7 * 2**32 + 3), 7 * 2**32 + 3),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_r19_a_transaction_may_come_with_its_epoch(text: str, xid: int) -> None:
    assert parse_xid(text) == xid
    assert ToXid(xid).short == xid & 0xFFFFFFFF


@pytest.mark.parametrize(
    "text",
    ["", "0", "1", "2", str(2**32), str(2**32 + 2), "-5", "0x10", "12 ", "١٢", "9" * 20, "x"],
)
def test_r19_what_no_user_s_transaction_ever_was_is_refused(text: str) -> None:
    with pytest.raises(RecoveryTargetInvalid):
        parse_xid(text)


@pytest.mark.parametrize("name", ["a", "before the release", "vor täglich", "n" * 63, "it's"])
def test_r19_a_restore_point_s_name_is_taken_as_it_is(name: str) -> None:
    assert parse_point(name) == name


@pytest.mark.parametrize("name", ["", "n" * 64, "ä" * 32, "two\nlines", "\0", "tab\t", "\x7f"])
def test_r19_what_cannot_be_a_restore_point_is_refused(name: str) -> None:
    with pytest.raises(RecoveryTargetInvalid, match="restore point"):
        parse_point(name)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (ToTime(parse_time("2026-11-22T13:00:00.5+01:00")), "time 2026-11-22T12:00:00.500000Z"),
        (ToLsn(Lsn.parse("16/B374D848")), "LSN 16/B374D848"),
        (ToXid(1234), "transaction 1234"),
        (ToName("before"), "restore point 'before'"),
        (ToImmediate(), "the end of the backup"),
        (ToLatest(), "the end of the archived WAL"),
    ],
)
def test_a_target_says_what_it_is(target: RecoveryTarget, words: str) -> None:
    assert str(target) == words
