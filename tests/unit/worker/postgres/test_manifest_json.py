"""Reading JSON entry by entry: what `json.loads` makes of it, or a refusal."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ManifestInvalid
from worker.postgres.manifest_json import ManifestJson

_scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
_documents = st.dictionaries(st.text(max_size=4), _values, max_size=5)


def read(raw: bytes, step: int) -> dict[str, Any]:
    document = ManifestJson(raw[start : start + step] for start in range(0, len(raw), step))
    return {
        key: [*document.elements(key)] if key.startswith("a") else document.value()
        for key in document.members()
    }


@given(
    document=_documents,
    ascii_only=st.booleans(),
    indent=st.none() | st.integers(0, 3),
    step=st.integers(1, 99),
)
def test_a_document_reads_as_json_loads_would_read_it_however_it_is_cut(
    *, document: dict[str, Any], ascii_only: bool, indent: int | None, step: int
) -> None:
    document = {
        key: [value] if key.startswith("a") and not isinstance(value, list) else value
        for key, value in document.items()
    }
    raw = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    assert read(raw, step) == document


@given(_documents, st.data())
def test_a_damaged_document_is_refused_or_json_all_the_same(
    document: dict[str, Any], data: st.DataObject
) -> None:
    raw = bytearray(json.dumps(document).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.sampled_from(b'{}[]",:0x\\ ') | st.integers(0, 255))
    try:
        found = read(bytes(raw), 64)
    except ManifestInvalid:
        return
    assert found == json.loads(bytes(raw))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        '{"x"',
        '{"x":',
        '{"x":1',
        '{"x":1,',
        '{"x":1,}',
        '{"x":1}}',
        '{"x":1} 2',
        '{"x" 1}',
        "{x:1}",
        '{"a":[1,]}',
        '{"a":[1 2]}',
        '{"a":[',
        '{"a":[1}',
        '{"x":"\t"}',
        '{"x":1,"x":1}',
        '{"x":{"y":1,"y":1}}',
        '{"x":1.5}',
        '{"x":-Infinity}',
        '\ufeff{"x":1}',
    ],
)
def test_what_is_no_object_of_that_kind_is_refused(text: str) -> None:
    with pytest.raises(ManifestInvalid):
        read(text.encode(), 3)
