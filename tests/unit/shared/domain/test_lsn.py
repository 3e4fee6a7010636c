"""Log sequence numbers: text, range and arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.lsn import LSN_MAX, Lsn
from shared.errors import LsnInvalid

positions = st.integers(0, LSN_MAX).map(Lsn)


@given(positions)
def test_the_text_of_a_position_reads_back_as_the_position(lsn: Lsn) -> None:
    assert Lsn.parse(str(lsn)) == lsn
    assert f"{lsn}" == str(lsn)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0/0", 0),
        ("16/B374D848", 0x16B374D848),
        ("1/00000028", 0x1_0000_0028),
        ("ffffffff/ffffffff", LSN_MAX),
    ],
)
def test_both_spellings_of_postgresql_are_read(text: str, number: int) -> None:
    assert Lsn.parse(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "/", "0/", "/0", "0/0/0", "0x1/0", "-1/0", "1/123456789", " 0/0", "0/0\n", "G/0"],
)
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(LsnInvalid, match="is not an LSN"):
        Lsn.parse(text)


@given(st.text(max_size=20))
def test_any_text_is_either_a_position_or_refused(text: str) -> None:
    try:
        lsn = Lsn.parse(text)
    except LsnInvalid:
        return
    assert Lsn.parse(str(lsn)) == lsn


@given(positions, st.integers(0, 2**40))
def test_a_position_plus_bytes_minus_the_position_is_the_bytes(lsn: Lsn, count: int) -> None:
    if int(lsn) + count <= LSN_MAX:
        later = lsn + count
        assert isinstance(later, Lsn)
        assert later - lsn == count
        assert later >= lsn


@pytest.mark.parametrize("number", [-1, LSN_MAX + 1])
def test_a_position_outside_64_bits_is_refused(number: int) -> None:
    with pytest.raises(LsnInvalid, match="outside the range"):
        Lsn(number)


def test_a_sum_that_overflows_is_refused() -> None:
    with pytest.raises(LsnInvalid, match="outside the range"):
        Lsn(LSN_MAX) + 1


def test_positions_order_as_numbers_not_as_texts() -> None:
    assert sorted(map(Lsn.parse, ["10/0", "9/0", "9/FF"])) == [
        Lsn.parse("9/0"),
        Lsn.parse("9/FF"),
        Lsn.parse("10/0"),
    ]
