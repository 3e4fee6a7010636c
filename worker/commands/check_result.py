"""What a check of `pgkeep check` ends with, and what has to be run or written for it."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.domain.drill import Check
from shared.errors import Refused
from worker.postgres.prerequisites import Lack


@dataclass(frozen=True, slots=True)
class Advice:
    """What a check that passed found, with what it would still rather see."""

    detail: str
    lacks: tuple[Lack, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckResult(Check):
    """`lacks` are those of `server`, which is a name for people; empty for the repository."""

    server: str = ""
    lacks: tuple[Lack, ...] = ()


class CheckFailed(Refused):
    """Something that a check found; its fact says what."""

    code = "check-failed"
    hint = "Correct what the check names, and run `pgkeep check` again."

    def __init__(self, fact: str, *, hint: str | None = None, lacks: Sequence[Lack] = ()) -> None:
        super().__init__(fact, hint=hint)
        self.lacks = tuple(lacks)
