"""What the control plane's steps took: rows of the benchmark's report."""

from collections.abc import Sequence
from statistics import median

from pydantic import BaseModel, ConfigDict


class ControlRow(BaseModel):
    """`seconds` is the median of all runs, `walls_s` has them all; `count` what was handled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    count: int
    seconds: float
    walls_s: tuple[float, ...]
    aim: str | None = None

    @property
    def per_minute(self) -> float:
        return self.count / self.seconds * 60 if self.seconds else 0.0


def control_row(
    name: str, count: int, walls: Sequence[float], aim: str | None = None
) -> ControlRow:
    rounded = tuple(round(wall, 3) for wall in walls)
    return ControlRow(
        name=name, count=count, seconds=round(median(walls), 3), walls_s=rounded, aim=aim
    )
