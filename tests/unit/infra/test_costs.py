"""docs/explanation/what-it-costs.md adds up, and counts what the templates deploy."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.harness.deployed import deployed

PAGE: Final = (Path(__file__).parents[3] / "docs/explanation/what-it-costs.md").read_text("utf-8")
TIMES: Final = "\N{MULTIPLICATION SIGN}"
_EQUATION: Final = re.compile(rf"^([\d(][-\d,.{TIMES}+/() s]*) = ([\d.,]+)$", re.MULTILINE)
EQUATIONS: Final = _EQUATION.findall(PAGE)


def evaluated(expression: str) -> float:
    """Sums, products and quotients of decimal numbers, and nothing else."""
    text = re.sub(r"[, s]", "", expression).replace(TIMES, "*")
    assert re.fullmatch(r"[-\d.*+/()]+", text), expression
    return float(eval(text, {"__builtins__": {}}))  # noqa: S307 - digits and operators only


def number(cell: str) -> float:
    return float(cell.strip(" *").replace(",", ""))


def table(heading: str) -> list[list[float]]:
    """The rows of numbers of the section's table; the last one is the sum."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [[number(cell) for cell in cells] for _, *cells in rows[1:]]


def test_the_page_shows_its_arithmetic() -> None:
    assert len(EQUATIONS) >= 15


@pytest.mark.parametrize(("expression", "result"), EQUATIONS, ids=lambda text: text[:40])
def test_every_equation_holds(expression: str, result: str) -> None:
    assert evaluated(expression) == pytest.approx(number(result), abs=0.006, rel=0.001)


@pytest.mark.parametrize("profile", ["The least-cost profile", "The production profile"])
def test_every_column_adds_up(profile: str) -> None:
    *items, total = table(profile)
    assert len(items) >= 8
    assert [sum(column) for column in zip(*items, strict=True)] == total


def test_what_is_counted_is_what_is_deployed() -> None:
    made = deployed("production")
    paces = [
        rule.get("properties.evaluationFrequency")
        for rule in made.of("Microsoft.Insights/scheduledQueryRules")
    ]
    endpoints = len(made.of("Microsoft.Network/privateEndpoints"))
    zones = len(made.of("Microsoft.Network/privateDnsZones"))
    assert f"{endpoints} {TIMES} 7.30 + {zones} {TIMES} 0.50" in PAGE
    assert f"{paces.count('PT5M')} {TIMES} 1.50 + {paces.count('PT15M')} {TIMES} 0.50" in PAGE
