"""The associated data of sealed objects: exact bytes, and no two inputs with the same ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.repository.object_aad import aad

UUID = "5f0e8d0a-4a7e-4a52-8a3b-0c8f2b6d9e11"
PART = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=8)
Parts = tuple[str, str, str, str]
PARTS = st.tuples(PART, PART, PART, PART)


def test_it_is_five_lines_each_ended_by_a_line_feed() -> None:
    name = "full/20261122T030000Z-F-k3x7/base.pgdata.0000"
    expected = f"pgkeep1\n{UUID}\n7421398765432109876\nkabc\n{name}\n".encode()
    assert aad(UUID, "7421398765432109876", "kabc", name) == expected


@given(PARTS, PARTS)
def test_different_objects_have_different_associated_data(one: Parts, other: Parts) -> None:
    assert (aad(*one) == aad(*other)) == (one == other)


@pytest.mark.parametrize("name", ["", "full/x\nkother"])
def test_a_part_that_is_not_one_line_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        aad(UUID, "1", "kabc", name)
