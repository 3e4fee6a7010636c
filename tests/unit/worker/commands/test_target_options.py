"""One target, said in one way, before anything is looked at."""

from datetime import UTC, datetime
from typing import Any

import pytest

from shared.domain.lsn import Lsn
from shared.domain.recovery_target import (
    RecoveryTarget,
    RecoveryTargetInvalid,
    TargetAction,
    ToImmediate,
    ToLatest,
    ToLsn,
    ToName,
    ToTime,
    ToXid,
)
from shared.errors import LsnInvalid
from worker.commands.recovery import RecoveryRequest
from worker.commands.target_options import TargetOptions

NOON = "2026-11-22T12:00:00+01:00"
ELEVEN = datetime(2026, 11, 22, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    ("options", "target"),
    [
        (TargetOptions(), ToImmediate()),
        (TargetOptions(immediate=True), ToImmediate()),
        (TargetOptions(to_latest=True), ToLatest()),
        (TargetOptions(to_time=NOON), ToTime(ELEVEN)),
        (TargetOptions(to_lsn="0/3000060"), ToLsn(Lsn.parse("0/3000060"))),
        (TargetOptions(to_xid="4294967396"), ToXid(2**32 + 100)),
        (TargetOptions(to_name="it's"), ToName("it's")),
    ],
)
def test_r19_each_kind_of_target_can_be_said(
    options: TargetOptions, target: RecoveryTarget
) -> None:
    assert options.request() == RecoveryRequest(target)


def test_a_target_may_be_left_out_itself_and_say_more() -> None:
    noon, transaction = TargetOptions(to_time=NOON), TargetOptions(to_xid="100")
    assert noon.request(exclusive=True).target == ToTime(ELEVEN, inclusive=False)
    found = transaction.request(exclusive=True, timeline=3, action=TargetAction.PAUSE)
    assert found == RecoveryRequest(ToXid(100, inclusive=False), 3, TargetAction.PAUSE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (TargetOptions(to_time="2026-11-22T12:00:00"), "has no offset"),
        (TargetOptions(to_time="yesterday"), "is not a time"),
        (TargetOptions(to_time=NOON, to_lsn="0/1"), "--to-time and --to-lsn"),
        (TargetOptions(to_latest=True, immediate=True), "--to-latest and --immediate"),
        (TargetOptions(to_xid="-1"), "is not a transaction number"),
        (TargetOptions(to_name=""), "cannot be the name"),
    ],
)
def test_r18_words_that_say_nothing_or_two_things_are_refused_with_a_hint(
    options: TargetOptions, words: str
) -> None:
    with pytest.raises(RecoveryTargetInvalid, match=words) as refused:
        options.request()
    assert refused.value.advice.endswith(".")
    assert refused.value.exit_status == 2


@pytest.mark.parametrize(
    ("options", "more", "words"),
    [
        (TargetOptions(to_name="x"), {"exclusive": True}, "--exclusive needs"),
        (TargetOptions(), {"exclusive": True}, "--exclusive needs"),
        (TargetOptions(), {"timeline": 2}, "its own timeline"),
        (TargetOptions(to_latest=True), {"action": TargetAction.PAUSE}, "cannot pause there"),
    ],
)
def test_r18_what_does_not_fit_the_target_is_refused(
    options: TargetOptions, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecoveryTargetInvalid, match=words):
        options.request(**more)


def test_a_position_that_is_none_is_refused() -> None:
    with pytest.raises(LsnInvalid):
        TargetOptions(to_lsn="zero").request()
