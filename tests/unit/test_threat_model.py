"""Each threat of the design has its answer, and a test that is really there."""

import re
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "explanation" / "threat-model.md").read_text("utf-8")
# The design counts them; one that nobody answers would be a gap in the numbers.
THREATS: Final = [f"T{number}" for number in range(1, 24)]


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.splitlines() if re.match(r"\| T\d+ \|", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@cache
def names_of_tests() -> frozenset[str]:
    texts = (path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return frozenset(name for text in texts for name in re.findall(r"def (test_\w+)\(", text))


def test_every_threat_says_what_it_is_where_it_is_met_and_by_which_test() -> None:
    assert [threat for threat, *_ in rows()] == THREATS
    for _, threat, where, test in rows():
        assert threat
        assert where
        assert re.fullmatch(r"`test_\w+`", test), threat


def test_the_tests_that_answer_threats_are_there() -> None:
    named = {test.strip("`") for *_, test in rows()}
    assert named - names_of_tests() == set()


def test_the_files_that_answer_threats_are_there() -> None:
    named = {name for _, _, where, _ in rows() for name in re.findall(r"`(\w+/[\w./-]+)`", where)}
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_deployed_identity_stands_in_the_table_of_roles() -> None:
    identities = (ROOT / "infra" / "modules" / "identities.bicep").read_text("utf-8")
    deployed = set(re.findall(r"^output (\w+)PrincipalId", identities, re.MULTILINE))
    assert deployed
    assert deployed <= set(re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE))
