"""The subset of Kusto refuses what Kusto would, or what it does not know."""

from datetime import UTC, datetime
from typing import Final

import pytest

from tests.harness.kusto_subset import NotKusto, run

NOW: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)
ROWS: Final = {"T": [{"a": 1, "s": "x", "Properties": {"p": "v"}}]}


@pytest.mark.parametrize(
    "query",
    [
        "T | take 1",
        "T | where a",
        'T | where a == "1"',
        'T | where Properties.p == "v"',
        "T | summarize n = count(a, a)",
        "T | where a == 1 2",
        "T | where (a == 1",
        "T | extend b = `a`",
    ],
)
def test_a_query_that_is_none_is_refused(query: str) -> None:
    with pytest.raises(NotKusto):
        run(query, ROWS, NOW)


def test_nothing_summed_up_is_a_row_and_by_nothing_is_none() -> None:
    query = "T | where a > 1 | summarize n = countif(a == 1), least = min(a)"
    assert run(query, ROWS, NOW) == [{"n": 0, "least": None}]
    assert run(f"{query} by s", ROWS, NOW) == []


def test_null_is_neither_more_nor_less_and_an_absent_member_is_empty_text() -> None:
    assert run("T | where a < 1 | summarize m = max(a) | where m < 9", ROWS, NOW) == []
    query = 'T | where tostring(Properties.p) == "v" and tostring(Properties.q) == ""'
    assert len(run(query, ROWS, NOW)) == 1
