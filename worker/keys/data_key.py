"""The key that seals data: held in memory, never shown, never serialised."""

import secrets
from collections.abc import Callable
from typing import NoReturn, Self

from shared.repository.key_record import DATA_KEY_LENGTH

_REDACTED = "**redacted**"


class DataKey:
    """32 secret bytes. Prints redacted, compares by identity, refuses to be copied or pickled."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != DATA_KEY_LENGTH:
            raise ValueError(f"a data key has {DATA_KEY_LENGTH} bytes, not {len(secret)}")
        self._secret = secret

    @classmethod
    def generate(cls, random: Callable[[int], bytes] = secrets.token_bytes) -> Self:
        return cls(random(DATA_KEY_LENGTH))

    def reveal(self) -> bytes:
        """The bytes, for the cipher. Keep them in no structure that may be printed."""
        return self._secret

    def __repr__(self) -> str:
        return _REDACTED

    def __getstate__(self) -> NoReturn:
        raise TypeError("a data key is not serialised")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a data key is not serialised")
