"""Runs a hook of infra/hooks beside commands that only note how they were called.

`az`, `azd`, `curl` and `docker` are not on every machine, and what they would reach is not here; so
it is with a vault that `pgkeep` asks.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

HOOKS: Final = Path(__file__).parents[2] / "infra" / "hooks"
_COMMANDS: Final = ("az", "azd", "curl", "docker", "pgkeep")
# The first answer whose words occur in the call is given; without one it succeeds and is silent.
_STUB: Final = """#!/bin/sh
call="${0##*/} $*"
printf '%s\\n' "$call" >> "$CALLS"
for answer in "$ANSWERS"/*/; do
    [ -e "$answer/words" ] || continue
    case "$call" in *"$(cat "$answer/words")"*) ;; *) continue ;; esac
    cat "$answer/text"
    exit "$(cat "$answer/status")"
done
"""


class HookConsole:
    """A folder to run hooks in, and what they called there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._calls, self._answers = folder / "calls", folder / "answers"
        self._calls.touch()
        self._answers.mkdir()
        commands = folder / "commands"
        commands.mkdir()
        for name in _COMMANDS:
            (commands / name).write_text(_STUB, "utf-8")
            (commands / name).chmod(0o755)

    def answer(self, words: str, text: str = "", status: int = 0) -> None:
        """To calls in which the words occur, unless an earlier answer has taken them."""
        place = self._answers / f"{len(list(self._answers.iterdir())):03}"
        place.mkdir()
        (place / "words").write_text(words, "utf-8")
        (place / "text").write_text(f"{text}\n" if text else "", "utf-8")
        (place / "status").write_text(str(status), "utf-8")

    def run(
        self,
        hook: str,
        *arguments: str,
        typed: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        paths = f"{self.folder / 'commands'}:/usr/bin:/bin"
        own = {"PATH": paths, "CALLS": str(self._calls), "ANSWERS": str(self._answers)}
        return subprocess.run(
            [HOOKS / hook, *arguments],
            cwd=self.folder,
            env={**own, **(environment or {})},
            input=typed,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )

    def calls(self, words: str) -> list[str]:
        return [line for line in self._calls.read_text("utf-8").splitlines() if words in line]
