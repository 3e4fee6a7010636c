"""A Dockerfile's instructions by stage, and the files that its last stage would hold.

There is no Docker here: what can be checked without one is what is installed, copied and run as.
"""

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    """`COPY`, and the words behind it; words that begin with `--` are its options."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        return [word for word in shlex.split(self.text) if not word.startswith("--")]

    @property
    def options(self) -> dict[str, str]:
        found = (word for word in shlex.split(self.text) if word.startswith("--"))
        return dict(word.removeprefix("--").partition("=")[::2] for word in found)


@dataclass(frozen=True, slots=True)
class Stage:
    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def of(self, name: str) -> list[Instruction]:
        return [one for one in self.instructions if one.name == name]


def stages(text: str) -> list[Stage]:
    """In their order; what stands before the first FROM belongs to none."""
    found: list[Stage] = []
    for one in _instructions(text):
        if one.name == "FROM":
            base, _, name = one.text.partition(" AS ")
            found.append(Stage(base, name, ()))
        elif found:
            last = found[-1]
            found[-1] = Stage(last.base, last.name, (*last.instructions, one))
    return found


def arguments(text: str) -> dict[str, str | None]:
    """Build arguments with their defaults."""
    found = (one.text.partition("=") for one in _instructions(text) if one.name == "ARG")
    return {name: value if equals else None for name, equals, value in found}


def installed_packages(stage: Stage) -> set[str]:
    """What `apt-get install` is asked for, without what build arguments add."""
    packages: set[str] = set()
    for one in stage.of("RUN"):
        for command in one.text.split("&&"):
            words = command.split()
            if words[:2] == ["apt-get", "install"]:
                packages |= {word for word in words[2:] if word[0] not in "-$"}
    return packages


def environment(stage: Stage) -> dict[str, str]:
    """What its ENV instructions set."""
    words = (word for one in stage.of("ENV") for word in one.words)
    return dict(word.partition("=")[::2] for word in words)


def copy_from_context(stage: Stage, context: Path, root: Path) -> None:
    """Does the COPY instructions that take from the context; files keep their modes, as there."""
    for one in stage.of("COPY"):
        if "from" in one.options:
            continue
        *sources, target = one.words
        for source in sources:
            _copy(context / source, root / target.lstrip("/"))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [Instruction(name.upper(), " ".join(rest.split())) for name, _, rest in found]
