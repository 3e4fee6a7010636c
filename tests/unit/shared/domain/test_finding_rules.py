"""The rules against the page that explains them: every code, and nothing else, by scope."""

import re
from pathlib import Path

import pytest

from shared.domain.finding_rules import RULES, FindingCode, FindingScope

DOCS = Path(__file__).parents[4] / "docs"
PAGE = (DOCS / "reference/findings.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
ENTRIES = dict(re.findall(r"^### `([\w-]+)`\n(.*?)(?=^###? |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_every_code_has_a_rule() -> None:
    assert set(RULES) == set(FindingCode)


def test_the_page_has_a_section_for_each_scope_with_its_codes_in_their_order() -> None:
    assert list(SECTIONS) == [scope.value for scope in FindingScope]
    for scope, text in SECTIONS.items():
        told = re.findall(r"^### `([\w-]+)`$", text, re.MULTILINE)
        assert told == [code.value for code, rule in RULES.items() if rule.scope == scope], scope


@pytest.mark.parametrize("code", FindingCode, ids=lambda code: code.value)
def test_each_entry_begins_with_its_severity_and_leads_to_its_page(code: FindingCode) -> None:
    rule, text = RULES[code], ENTRIES[code.value]
    assert text.startswith(f"*{rule.severity}*. ")
    if rule.page is None:
        assert "Next: " in text
    else:
        assert f"](../{rule.page})" in text
        assert (DOCS / rule.page).is_file()
    assert rule.action.endswith(".")
