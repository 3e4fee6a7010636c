"""What a person sees while the demo runs: bars on a terminal, one plain line a step elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)


@dataclass(slots=True)
class Step:
    """One step. `update` may come from any thread; a total of 0 means nobody knows."""

    progress: Progress | None
    task: TaskID
    words: str = ""

    def update(self, done: float, total: float, words: str = "") -> None:
        self.words = words or self.words
        if self.progress is not None:
            self.progress.update(self.task, completed=done, total=total or None, words=self.words)


class Steps:
    """Prints the steps as they go. Use as the one owner of the console until `close`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[words]}"),
            console=console,
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        with self._progress:
            yield

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """A step that fails says so; its error tells more."""
        if self._console.is_terminal:
            task = self._progress.add_task(title, total=None, words="")
            step = Step(self._progress, task)
            yield step
            self._progress.update(task, total=1, completed=1, words=step.words)
            return
        began, step, ending = time.monotonic(), Step(None, TaskID(0)), "failed"
        try:
            yield step
            ending = step.words
        finally:
            seconds = time.monotonic() - began
            self._console.print(f"{title:<34} {seconds:6.1f} s  {ending}".rstrip())
