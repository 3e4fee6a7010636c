"""Log sequence numbers: a byte position in the write-ahead log, written `X/X` in hexadecimal."""

import re
from typing import Final, Self, SupportsInt

from shared.errors import LsnInvalid

LSN_MAX: Final = 2**64 - 1  # XLogRecPtr is a uint64 (access/xlogdefs.h)
_TEXT = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class Lsn(int):
    """A position from 0/0 to FFFFFFFF/FFFFFFFF; orders like the number it is.

    Position plus bytes is a position; position minus position is a plain number of bytes. The text
    is what PostgreSQL 15 to 18 print (`%X/%X`); the zero-padded second half that later versions
    print is read as well.
    """

    __slots__ = ()

    def __new__(cls, value: SupportsInt) -> Self:
        """Raises LsnInvalid outside 64 bits."""
        number = int(value)
        if not 0 <= number <= LSN_MAX:
            raise LsnInvalid(f"{number} is outside the range of an LSN")
        return super().__new__(cls, number)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises LsnInvalid for whatever is not two hexadecimal halves around one slash."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise LsnInvalid(f"{text[:40]!r} is not an LSN")
        high, low = match.groups()
        return cls(int(high, 16) << 32 | int(low, 16))

    def __add__(self, count: int) -> "Lsn":
        return Lsn(int(self) + int(count))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn('{self}')"
