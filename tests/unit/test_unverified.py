"""What only a real account can show is listed with where it matters, and the command to run."""

import re
from pathlib import Path
from typing import Final

from tests.harness.bicep_syntax import load
from tests.harness.deployed import MAIN, deployed

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


def test_every_variable_of_a_command_is_one_that_a_deployment_sets() -> None:
    used = {name for _, _, command, _ in rows() for name in re.findall(r"\$([A-Z_]+)", command)}
    assert used
    assert used <= {one.name for one in load(MAIN).of("output")}


def test_numbers_that_are_expected_are_those_of_the_code() -> None:
    [alerts] = [row[3] for row in rows() if "az monitor scheduled-query list" in row[2]]
    [functions] = [row[3] for row in rows() if "az functionapp function list" in row[2]]
    rules = deployed().of("Microsoft.Insights/scheduledQueryRules")
    files = [
        path
        for path in (ROOT / "functions").glob("*.py")
        if "blueprint = func.Blueprint()" in path.read_text("utf-8")
    ]
    assert alerts == f"{len(rules)}, enabled"
    assert functions == str(len(files))
