"""Strict base64url: what was encoded is read back, and bytes have one spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.repository import base64url


@given(st.binary(max_size=100))
def test_decoding_is_the_inverse_of_encoding(data: bytes) -> None:
    assert base64url.decode(base64url.encode(data)) == data


@given(st.text(st.sampled_from("AQg-_w=+/ \n"), max_size=12))
def test_every_text_that_decodes_is_the_encoding_of_its_bytes(text: str) -> None:
    try:
        data = base64url.decode(text)
    except ValueError:
        return
    assert base64url.encode(data) == text


@pytest.mark.parametrize("text", ["AA==", "AB", "A", "+/8", "A A", "é"])
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="base64url"):
        base64url.decode(text)
