"""The ways to spoil bytes: each changes what it says, and nothing else."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.corrupt import append, cut, drop, duplicate, flip_bit, swap

DATA = b"0123456789"


@given(data=st.binary(min_size=1, max_size=50), choice=st.data())
def test_a_flipped_bit_is_one_bit_and_flips_back(data: bytes, choice: st.DataObject) -> None:
    bit = choice.draw(st.integers(-len(data) * 8, len(data) * 8 - 1))
    spoiled = flip_bit(data, bit)
    differences = [a ^ b for a, b in zip(data, spoiled, strict=True)]
    assert sum(difference.bit_count() for difference in differences) == 1
    assert flip_bit(spoiled, bit) == data


def test_each_change_of_length_or_order_is_where_it_was_asked_for() -> None:
    assert flip_bit(DATA, -1) == b"012345678\xb9"
    assert cut(DATA, 4) == b"0123"
    assert swap(DATA, 6, 1, 2) == b"0673451289"
    assert drop(DATA, 3, 4) == b"012789"
    assert duplicate(DATA, 3, 2) == b"012343456789"
    assert append(DATA, b"x") == b"0123456789x"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: flip_bit(DATA, 80),
        lambda: flip_bit(b"", 0),
        lambda: cut(DATA, 10),
        lambda: swap(b"abab", 0, 2, 2),
        lambda: swap(DATA, 0, 1, 2),
        lambda: swap(DATA, 0, 9, 2),
        lambda: drop(DATA, 10, 1),
        lambda: duplicate(DATA, 3, 0),
        lambda: append(DATA, b""),
    ],
)
def test_what_would_change_nothing_is_refused(spoil: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match="bytes"):
        spoil()
