"""Writes the reference pages that the code already states: errors, settings, verbs, log events.

    python -m scripts.generate_reference [--check]

Each page has a head that people write, down to the line MARK; what follows comes from the code.
With --check nothing is written, and the exit status is 1 when a page is stale.
"""

import argparse
import difflib
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from scripts.reference_pages import command_line, errors, log_events, settings, settings_schema

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
MARK = "<!-- What follows is written by `python -m scripts.generate_reference`. -->"
PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "errors.md": errors.body,
    "settings.md": settings.body,
    "cli.md": command_line.body,
    "log-events.md": log_events.body,
}
# Files without a head of people's own.
WHOLE_FILES: dict[str, Callable[[], str]] = {"pgkeep.schema.json": settings_schema.text}
_DIFFERENCES = 12


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.generate_reference")
    parser.add_argument("--check", action="store_true", help="write nothing, tell what is stale")
    check = parser.parse_args(arguments).check
    outdated = stale_pages()
    for name, text in outdated.items():
        if check:
            print(difference(name, text))
        else:
            (REFERENCE / name).write_text(text, "utf-8")
            print(f"wrote docs/reference/{name}")
    return int(check and bool(outdated))


def stale_pages() -> dict[str, str]:
    """Name and new text of each page that is not what the code says."""
    texts = {name: _text(name) for name in PAGES}
    texts |= {name: write() for name, write in WHOLE_FILES.items()}
    return {name: text for name, text in texts.items() if text != _written(name)}


def difference(name: str, text: str) -> str:
    """The first lines in which the page and the code differ."""
    before, after = _written(name).splitlines(), text.splitlines()
    lines = difflib.unified_diff(before, after, n=0, lineterm="")
    changed = (f"    {line}" for line in lines if not line.startswith(("---", "+++", "@@")))
    head = f"docs/reference/{name} is stale; run `python -m scripts.generate_reference`:"
    return "\n".join([head, *islice(changed, _DIFFERENCES)])


def _written(name: str) -> str:
    path = REFERENCE / name
    return path.read_text("utf-8") if path.exists() else ""


def _text(name: str) -> str:
    head, mark, _ = _written(name).partition(MARK)
    if not mark:
        raise ValueError(f"docs/reference/{name} lacks the line {MARK}")
    body = "\n".join(PAGES[name]()).rstrip()
    return f"{head}{MARK}\n\n{body}\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
