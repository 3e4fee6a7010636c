"""The JSON of a backup_manifest, read entry by entry: only a window of it is ever in memory.

As strict as `json.loads`, and stricter: no key twice, no number but integers, UTF-8 only.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final, NoReturn

from shared.errors import ManifestInvalid

# An entry is a path and little else: PostgreSQL's paths have less than 1024 bytes (MAXPGPATH), of
# which escapes make six characters each. A longer value is none of PostgreSQL's.
_VALUE_MAX: Final = 1 << 16
_STEP: Final = 1 << 18
_BLANKS: Final = re.compile(r"[ \t\n\r]*")

Json = dict[str, object]


class ManifestJson:
    """Where the reading of one document stands. Every method raises ManifestInvalid."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._texts = codecs.iterdecode(_pieces(chunks), "utf-8")
        self._text, self._at = "", 0
        self._ended = False

    def members(self) -> Iterator[str]:
        """The keys of the document, which is an object; take each one's value before the next."""
        if self._next_character() != "{":
            self.value()
            raise ManifestInvalid("the manifest is not an object")
        known: set[str] = set()
        for _ in self._separated("{", "}"):
            yield self._key(known)
        if self._next_character():
            raise ManifestInvalid("not JSON: more follows behind its end")

    def elements(self, what: str) -> Iterator[object]:
        """Those of the array that comes next, one by one."""
        if self._next_character() != "[":
            self.value()
            raise ManifestInvalid(f"{what} is not an array")
        for _ in self._separated("[", "]"):
            yield self.value()

    def value(self) -> object:
        """What comes next, whatever it is, as `json.loads` would return it."""
        self._next_character()
        try:
            value, self._at = _DECODER.raw_decode(self._text, self._at)
        except (ValueError, RecursionError) as error:
            raise ManifestInvalid(f"not JSON: {error}") from None
        return value

    def _key(self, known: set[str]) -> str:
        if self._next_character() != '"':
            raise ManifestInvalid("not JSON: a key was due")
        key = str(self.value())
        if key in known:
            raise ManifestInvalid("an object holds the same key twice")
        known.add(key)
        self._take(":")
        return key

    def _separated(self, opening: str, closing: str) -> Iterator[None]:
        """Stands before each item in turn; goes on behind the closing bracket."""
        self._take(opening)
        if self._next_character() != closing:
            yield
            while self._next_character() == ",":
                self._at += 1
                yield
        self._take(closing)

    def _take(self, character: str) -> None:
        if self._next_character() != character:
            raise ManifestInvalid(f"not JSON: {character!r} was due")
        self._at += 1

    def _next_character(self) -> str:
        """Behind blanks, with all of the value that it may begin; '' at the end."""
        while True:
            blanks = _BLANKS.match(self._text, self._at)
            self._at = blanks.end() if blanks else self._at
            if self._ended or len(self._text) - self._at >= _VALUE_MAX:
                return self._text[self._at : self._at + 1]
            self._fill()

    def _fill(self) -> None:
        try:
            following = next(self._texts, "")
        except UnicodeDecodeError as error:
            raise ManifestInvalid(f"the manifest is not UTF-8: {error.reason}") from None
        self._ended = not following
        self._text, self._at = self._text[self._at :] + following, 0


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), _STEP):
            yield chunk[start : start + _STEP]


def _object(pairs: list[tuple[str, object]]) -> Json:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ManifestInvalid("an object holds the same key twice")
    return members


def _no_such_number(literal: str) -> NoReturn:
    raise ManifestInvalid(f"{literal[:40]!r} is not an integer")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_no_such_number, parse_constant=_no_such_number
)
