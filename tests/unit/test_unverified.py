"""What only a real account can show is listed with where it matters, and the command to run."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "reference" / "unverified.md").read_text("utf-8")


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[cell.strip() for cell in row] for row in cells if row[0].strip() != "claim"]


def test_every_claim_says_where_it_matters_what_to_run_and_what_to_expect() -> None:
    assert len(rows()) > 30
    for row in rows():
        claim, where, command, expected = row
        assert claim, row
        assert expected, row
        assert where, row
        assert "`" in command or "the same" in command or "a backup" in command, claim
    assert len({row[0] for row in rows()}) == len(rows())


def test_every_file_that_is_named_is_there() -> None:
    for _, where, _, _ in rows():
        for name in re.findall(r"`([\w./-]+\.\w+|infra/hooks/[\w-]+)`", where):
            assert (ROOT / name).exists(), name
