"""The document and the code have one table of metrics, and each can be recorded."""

import re
from pathlib import Path

import pytest

from shared.telemetry.meters import NO_TELEMETRY
from shared.telemetry.metric_names import METRICS, MetricRule
from tests.harness.recorded_telemetry import recorded_telemetry

PAGE = Path(__file__).parents[4] / "docs/reference/telemetry.md"


def row_of(rule: MetricRule) -> str:
    attributes = ", ".join(f"`{name}`" for name in rule.attributes) or "none"
    cells = (f"`{rule.name}`", rule.kind, f"`{rule.unit}`", attributes, rule.description)
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize(
    ("heading", "emitted_by"),
    [("Of the function app", "functions"), ("Of the workers", "worker")],
)
def test_the_document_has_each_metric_as_the_code_has_it(heading: str, emitted_by: str) -> None:
    section = re.split(r"^#+ ", PAGE.read_text("utf-8").partition(f"### {heading}\n")[2])[0]
    rows = [line for line in section.partition("\n\n#")[0].splitlines() if "`pgkeep." in line]
    assert rows == [row_of(rule) for rule in METRICS.values() if rule.emitted_by == emitted_by]


def test_each_is_recorded_under_its_name_with_its_unit() -> None:
    recorded = recorded_telemetry()
    for rule in METRICS.values():
        for telemetry in (recorded.telemetry, NO_TELEMETRY):
            telemetry.record(rule.name, 2.5, **dict.fromkeys(rule.attributes, "x"))
    assert {name: points[0].value for name, points in recorded.metrics().items()} == dict.fromkeys(
        METRICS, 2.5
    )


def test_names_attributes_and_units_are_of_one_kind() -> None:
    for name, rule in METRICS.items():
        assert name == rule.name
        assert re.fullmatch(r"pgkeep(\.[a-z_]+)+", name)
        assert rule.unit in {"s", "By", "1"} or re.fullmatch(r"\{[a-z]+\}", rule.unit)
        assert list(rule.buckets) == sorted(rule.buckets)
        assert len(set(rule.attributes)) == len(rule.attributes)
