"""The evaluator of Bicep: what the other tests of infra/ stand on."""

from pathlib import Path

import pytest

from tests.harness.bicep_deployment import Deployment, deploy
from tests.harness.bicep_syntax import SyntaxFault, Template, parse

INNER = """
@description('Names.')
param names array
param suffix string = 'z'
resource made 'A/b@1' = [for (name, index) in names: if (name != 'c') {
  name: '${name}-${index}-${suffix}'
}]
output first string = made[0].name
output known string = made[0].properties.address
"""
OUTER = """
var numbers = {
  one: 1
  two: 1 + 1
}
module inner 'inner.bicep' = {
  name: 'inner'
  params: {
    names: ['a', 'b', 'c']
  }
}
module absent 'inner.bicep' = if (false) {
  name: 'absent'
  params: {
    names: []
  }
}
resource parent 'A/c@1' existing = {
  name: 'parent'
}
resource child 'A/c/d@1' = {
  parent: parent
  name: 'child'
  properties: {
    list: [for item in items(numbers): '${item.key}${item.value}']
    'odd key': empty([]) && !contains('abc', 'x') ? 'yes' : 'no'
    address: inner.outputs.known
    missing: null ?? 'default'
  }
}
output id string = child.id
"""


def deployed(outer: str = OUTER, inner: str = INNER, **parameters: object) -> Deployment:
    def read(path: Path) -> Template:
        return parse(inner if path.name == "inner.bicep" else outer)

    return deploy(Path("outer.bicep"), parameters, read)


def test_modules_loops_conditions_and_references_are_resolved() -> None:
    found = deployed()
    assert [one.name for one in found.of("A/b")] == ["a-0-z", "b-1-z"]
    child = found.one("A/c/d")
    assert child.name == "parent/child"
    assert child.get("properties") == {
        "list": ["one1", "two2"],
        "odd key": "yes",
        "address": "a-0-z.properties.address",
        "missing": "default",
    }
    assert found.outputs == {"id": "A/c/d:parent/child"}
    assert found.of("A/c") == []
    assert child.get("properties.address.more", "none") == "none"


@pytest.mark.parametrize(
    ("outer", "fault"),
    [
        ("var a = [", "line 1 is no bicep"),
        ("output a string = b", "has no symbol b"),
        ("param a string\noutput b string = a", "a has no value"),
        ("var a = {}\noutput b string = a.c", "has no member c"),
    ],
)
def test_what_cannot_be_evaluated_is_a_fault_and_no_value(outer: str, fault: str) -> None:
    with pytest.raises(SyntaxFault, match=fault):
        deployed(outer)


def test_a_parameter_that_no_template_has_is_a_fault() -> None:
    with pytest.raises(SyntaxFault, match="no parameters"):
        deployed(unheard_of=1)
