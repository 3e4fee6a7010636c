"""What must be known of tar members, kept as the stream goes by: nothing is read twice."""

from typing import Protocol


class Head(Protocol):
    """The beginning of one member, fed in pieces. `missing` is 0 when it needs no more."""

    @property
    def missing(self) -> int: ...

    def feed(self, piece: memoryview) -> int:
        """How much of it was taken."""
        ...


class Whole:
    """A small member, kept as it is."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.content = bytearray()

    @property
    def missing(self) -> int:
        return self._size - len(self.content)

    def feed(self, piece: memoryview) -> int:
        taken = piece[: self.missing]
        self.content += taken
        return len(taken)


class HeadFeeder:
    """Gives one head at a time what it waits for of an archive's stream."""

    def __init__(self) -> None:
        self._head: Head | None = None
        self._next = 0

    def begin(self, head: Head, data_offset: int) -> None:
        """`head` is that of the member whose data begins at `data_offset` of the stream.

        The head before it must have been complete: members do not overlap.
        """
        self._head, self._next = head, data_offset

    def feed(self, chunk: bytes | memoryview, begin: int) -> Head | None:
        """`chunk` lies at `begin` of the stream; it may be fed again. The head that is complete
        now, if one is, and was not before.
        """
        head = self._head
        if head is None:
            return None
        self._next += head.feed(memoryview(chunk)[max(0, self._next - begin) :])
        if head.missing:
            return None
        self._head = None
        return head
