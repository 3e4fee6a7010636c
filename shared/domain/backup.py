"""What a backup is called, and the three facts that are kept apart: committed, verified, proven."""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from shared.errors import InvalidInput

_LABEL = re.compile(r"\d{8}T\d{6}Z-[FI]-[a-z2-7]{4}", re.ASCII)
_LABEL_TIME = "%Y%m%dT%H%M%SZ"
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


class BackupLabelInvalid(InvalidInput):
    """A text that is no backup label."""

    code = "backup-label-invalid"
    hint = "A label reads 20261122T030000Z-F-k3x7; `pgkeep list` shows them."


class BackupKind(StrEnum):
    """The value is also the name of the container that holds backups of the kind."""

    FULL = "full"
    INCREMENTAL = "incremental"

    @property
    def letter(self) -> str:
        return "F" if self is BackupKind.FULL else "I"


class BackupSource(StrEnum):
    PRIMARY = "primary"
    STANDBY = "standby"


@dataclass(frozen=True, slots=True, order=True)
class BackupLabel:
    """`<UTC time>-<F|I>-<4 base32>`: sorts by time; the random part keeps two writers apart."""

    text: str

    @classmethod
    def new(
        cls,
        kind: BackupKind,
        now: datetime,
        choose: Callable[[str], str] = secrets.choice,
    ) -> Self:
        time = now.astimezone(UTC).strftime(_LABEL_TIME)
        return cls(f"{time}-{kind.letter}-{''.join(choose(_BASE32) for _ in range(4))}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BackupLabelInvalid, also for a date that does not exist."""
        label = cls(text)
        if not _LABEL.fullmatch(text):
            raise BackupLabelInvalid(f"{text!r} is not a backup label")
        try:
            _ = label.time
        except ValueError:
            raise BackupLabelInvalid(f"{text!r} holds no valid time") from None
        return label

    @property
    def kind(self) -> BackupKind:
        return BackupKind.FULL if "-F-" in self.text else BackupKind.INCREMENTAL

    @property
    def time(self) -> datetime:
        return datetime.fromisoformat(self.text[:16])

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """Three separate facts about one backup, each with the time it was found; never one status.

    `ancestor_failed_at`: when one that it builds on was found damaged, and not sound since.
    `geo_safe_at`: when all of it was found to be in the second region; no fact about its soundness.
    """

    committed_at: datetime
    verified_at: datetime | None = None
    verification_failed_at: datetime | None = None
    proven_at: datetime | None = None
    drill_failed_at: datetime | None = None
    suspect: bool = False
    ancestor_failed_at: datetime | None = None
    geo_safe_at: datetime | None = None

    @property
    def verified(self) -> bool:
        sound_below = self.ancestor_failed_at is None
        return sound_below and newer(self.verified_at, self.verification_failed_at)

    @property
    def proven(self) -> bool:
        return newer(self.proven_at, self.drill_failed_at)


def newer(good: datetime | None, bad: datetime | None) -> bool:
    """Whether the good finding exists and is not overtaken by a later bad one."""
    return good is not None and (bad is None or good > bad)
