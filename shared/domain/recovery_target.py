"""Where recovery shall end: one of six kinds of target, as PostgreSQL knows them.

`inclusive` as in recovery_target_inclusive: whether what lies exactly at the target is kept.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from shared.domain.lsn import Lsn
from shared.errors import InvalidInput

# NAMEDATALEN - 1 bytes fit (recovery_target_name is compared with a restore point's 63 bytes).
_NAME_BYTES: Final = 63
_XIDS: Final = 1 << 32
_FIRST_NORMAL_XID: Final = 3


class RecoveryTargetInvalid(InvalidInput):
    """A recovery target that says nothing, or more than one thing."""

    code = "recovery-target-invalid"
    hint = (
        "Give one of --to-time 2026-11-22T10:00:00+00:00, --to-lsn 0/3000060, --to-xid 1234, "
        "--to-name NAME, --to-latest, --immediate."
    )


class TargetAction(StrEnum):
    """What PostgreSQL does at the target: recovery_target_action."""

    PROMOTE = "promote"
    PAUSE = "pause"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class ToTime:
    """The state that transactions committed up to `time`, by the server's clock, had made."""

    time: datetime
    inclusive: bool = True

    def __str__(self) -> str:
        return f"time {self.time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


@dataclass(frozen=True, slots=True)
class ToLsn:
    lsn: Lsn
    inclusive: bool = True

    def __str__(self) -> str:
        return f"LSN {self.lsn}"


@dataclass(frozen=True, slots=True)
class ToXid:
    """The end of this transaction; others may have committed before it, and began after it.

    From 2^32 on `xid` is a 64-bit number that says its epoch; below, of whatever epoch it is.
    """

    xid: int
    inclusive: bool = True

    @property
    def short(self) -> int:
        """The 32 bits that are in a record of the log, and that PostgreSQL compares."""
        return self.xid % _XIDS

    def __str__(self) -> str:
        return f"transaction {self.xid}"


@dataclass(frozen=True, slots=True)
class ToName:
    """A restore point, made by pg_create_restore_point; always inclusive."""

    name: str

    def __str__(self) -> str:
        return f"restore point {self.name!r}"


@dataclass(frozen=True, slots=True)
class ToImmediate:
    """The first consistent point: the backup's own end."""

    def __str__(self) -> str:
        return "the end of the backup"


@dataclass(frozen=True, slots=True)
class ToLatest:
    """The end of the archived WAL."""

    def __str__(self) -> str:
        return "the end of the archived WAL"


RecoveryTarget = ToTime | ToLsn | ToXid | ToName | ToImmediate | ToLatest


def parse_time(text: str) -> datetime:
    """An ISO 8601 instant with its offset, in UTC; what is finer than a microsecond, as
    PostgreSQL's clock is not, is cut off. Raises RecoveryTargetInvalid.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise RecoveryTargetInvalid(f"{text[:40]!r} is not a time") from None
    if time.tzinfo is None:
        whole = time.isoformat()  # of a day alone, too
        raise RecoveryTargetInvalid(
            f"{text!r} has no offset, so it may mean any hour of the day",
            hint=f"Write {whole}Z for UTC, or {whole}+01:00 for an hour ahead of it.",
        )
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise RecoveryTargetInvalid(f"{text!r} is beyond the years 1 to 9999 in UTC") from None


def parse_xid(text: str) -> int:
    """Of `1234`, or of a 64-bit number with its epoch, as pg_current_xact_id() gives it."""
    if not re.fullmatch(r"\d{1,20}", text, re.ASCII) or int(text) >= 2**64:
        raise RecoveryTargetInvalid(f"{text[:40]!r} is not a transaction number")
    if int(text) % _XIDS < _FIRST_NORMAL_XID:
        raise RecoveryTargetInvalid(f"transaction {text} can never have been a user's")
    return int(text)


def parse_point(text: str) -> str:
    """The name of a restore point. Raises RecoveryTargetInvalid."""
    if not text or len(text.encode()) > _NAME_BYTES or not text.isprintable():
        raise RecoveryTargetInvalid(f"{text[:80]!r} cannot be the name of a restore point")
    return text
