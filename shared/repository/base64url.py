"""Unpadded base64url (RFC 4648 §5), strict: bytes have one spelling, and no other is read."""

import base64
import binascii
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Raises ValueError for anything that `encode` would not have written."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64url") from None
    if encode(data) != text:
        raise ValueError("not the shortest base64url of its bytes")
    return data


def _from_text(value: object) -> object:
    return decode(value) if isinstance(value, str) else value


# bytes in Python, base64url in JSON.
Base64Url = Annotated[
    bytes, BeforeValidator(_from_text), PlainSerializer(encode, return_type=str, when_used="json")
]
