"""Sealed stream: Tink's AES256_GCM_HKDF_1MB streaming encryption, sealed in order, opened anywhere.

    0      1   0x28, the header's length
    1     32   salt, fresh for every object and every attempt
    33     7   nonce prefix
    40     …   segment 0: at most 1 MiB - 40 bytes with its 16-byte tag
    i·MiB  …   segment i: 1 MiB with its tag; the last one is shorter

    derived key = HKDF-SHA256(data key, salt, info = AAD, 32 bytes)
    nonce       = prefix ‖ u32be(i) ‖ (1 if last else 0); no AAD per segment

A plaintext that ends on a segment's boundary gets no empty segment behind it; the empty plaintext
is one segment that is only a tag. Byte order and rules: Tink's "AES-GCM-HKDF Streaming AEAD".
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.errors import PgkeepError, SegmentCorrupt

SEGMENT_SIZE = 1 << 20
SALT_LENGTH = 32
PREFIX_LENGTH = 7
HEADER_LENGTH = 1 + SALT_LENGTH + PREFIX_LENGTH
TAG_LENGTH = 16
DATA_KEY_LENGTH = 32
MAX_SEGMENTS = 1 << 32  # the counter in the nonce has 32 bits
# Segments fetched at once by a sequential reader: enough to a request that its round trip hardly
# counts, and little enough that several may be in memory, sealed and opened.
STREAM_WINDOW = 4

Buffer = bytes | bytearray | memoryview
Fetch = Callable[[int, int], Buffer]
"""Stored bytes [start, end) of one object."""


@dataclass(frozen=True, slots=True)
class SegmentSpan:
    """Segments first…last and the stored bytes [start, end) that hold exactly these."""

    first: int
    last: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where plaintext lies in a sealed object. Lengths and offsets in bytes; segments from 0."""

    segment_size: int = SEGMENT_SIZE

    @property
    def _first_capacity(self) -> int:
        return self.segment_size - HEADER_LENGTH - TAG_LENGTH

    def capacity(self, segment: int) -> int:
        """Plaintext bytes of a full segment."""
        return self._first_capacity if segment == 0 else self.segment_size - TAG_LENGTH

    def segment_of(self, plain_offset: int) -> int:
        return (plain_offset + HEADER_LENGTH) // (self.segment_size - TAG_LENGTH)

    def plain_start(self, segment: int) -> int:
        """Plaintext offset of the segment's first byte."""
        return max(0, segment * (self.segment_size - TAG_LENGTH) - HEADER_LENGTH)

    def stored_length(self, plain_length: int) -> int:
        segments = self.segment_of(max(0, plain_length - 1)) + 1
        return HEADER_LENGTH + plain_length + segments * TAG_LENGTH

    def segments(self, stored_length: int) -> int:
        return -(-stored_length // self.segment_size)

    def plaintext_length(self, stored_length: int) -> int:
        """Raises SegmentCorrupt for a length that no sealed object has."""
        segments = self.segments(stored_length)
        plain = stored_length - HEADER_LENGTH - segments * TAG_LENGTH
        if plain < 0 or self.stored_length(plain) != stored_length:
            raise SegmentCorrupt(f"no sealed object is {stored_length} bytes long")
        return plain

    def stored_span(self, first: int, last: int, stored_length: int) -> SegmentSpan:
        start = max(HEADER_LENGTH, first * self.segment_size)
        return SegmentSpan(first, last, start, min((last + 1) * self.segment_size, stored_length))

    def stored_span_of_plain(self, start: int, end: int, stored_length: int) -> SegmentSpan:
        """The segments to fetch for plaintext [start, end), which must not be empty."""
        return self.stored_span(self.segment_of(start), self.segment_of(end - 1), stored_length)


TINK_1MB = Geometry()


class SegmentSealer:
    """Seals one object. Every segment is sealed once, in order, so no nonce is ever used twice.

    A retry of an upload sends the returned bytes again; a new attempt needs a new sealer.
    """

    def __init__(
        self,
        data_key: bytes,
        aad: bytes,
        *,
        random: Callable[[int], bytes],
        geometry: Geometry = TINK_1MB,
    ) -> None:
        salt = random(SALT_LENGTH)
        self._prefix = random(PREFIX_LENGTH)
        self._header = bytes([HEADER_LENGTH]) + salt + self._prefix
        self._cipher = _cipher(data_key, salt, aad)
        self._geometry = geometry
        self._segment = 0
        self._pending = bytearray()
        self._finished = False

    def feed(self, data: Buffer) -> list[bytes]:
        """Stored pieces that are now complete, each exactly one segment size long.

        A full segment waits for one more byte, because the last one is sealed differently. Whole
        segments inside `data` are sealed from where they lie; only the ends are copied.
        """
        self._refuse_if_finished()
        pieces: list[bytes] = []
        with memoryview(data) as view:
            position = 0
            while len(self._pending) + len(view) - position > self._capacity:
                taken = self._capacity - len(self._pending)
                part = view[position : position + taken]
                pieces.append(self._seal(self._filled(part), last=False))
                position += taken
            self._pending += view[position:]
        return pieces

    def finish(self) -> bytes:
        """The last piece, never empty; afterwards the sealer is of no more use."""
        self._refuse_if_finished()
        self._finished = True
        return self._seal(self._pending, last=True)

    @property
    def _capacity(self) -> int:
        return self._geometry.capacity(self._segment)

    def _filled(self, part: memoryview) -> Buffer:
        if not self._pending:
            return part
        filled, self._pending = self._pending, bytearray()
        filled += part
        return filled

    def _seal(self, plain: Buffer, *, last: bool) -> bytes:
        if self._segment >= MAX_SEGMENTS:
            raise PgkeepError(f"a sealed object cannot have more than {MAX_SEGMENTS} segments")
        sealed = self._cipher.encrypt(_nonce(self._prefix, self._segment, last=last), plain, None)
        if self._segment == 0:
            sealed = self._header + sealed
        self._segment += 1
        return sealed

    def _refuse_if_finished(self) -> None:
        if self._finished:
            raise PgkeepError("a sealed object is finished and takes no more bytes")


class SegmentOpener:
    """Opens segments of one object in any order and from any thread.

    Nothing but the last segment opens until the last one did: only its flag proves that the
    object is as long as the document says. `open_object` makes an opener that passed this.
    """

    def __init__(
        self,
        data_key: bytes,
        aad: bytes,
        header: Buffer,
        stored_length: int,
        *,
        name: str,
        geometry: Geometry = TINK_1MB,
    ) -> None:
        """`stored_length` is the signed document's, not the blob's; `name` is for messages.

        Raises SegmentCorrupt for a header or a length that no sealed object has.
        """
        salt, self._prefix = _split_header(bytes(header), name)
        self._plain_length = geometry.plaintext_length(stored_length)
        self._cipher = _cipher(data_key, salt, aad)
        self._geometry = geometry
        self._stored_length = stored_length
        self._name = name
        self._last = geometry.segments(stored_length) - 1
        self._length_proven = False

    @property
    def plain_length(self) -> int:
        return self._plain_length

    @property
    def last_segment(self) -> SegmentSpan:
        return self.span(self._last, self._last)

    def span(self, first: int, last: int) -> SegmentSpan:
        return self._geometry.stored_span(first, last, self._stored_length)

    def open(self, index: int, ciphertext: Buffer) -> bytearray:
        """Plaintext of one segment; `ciphertext` is all its stored bytes with the tag.

        Raises SegmentCorrupt, which names the object and the segment's stored offset.
        """
        return self.open_span(self.span(index, index), ciphertext)

    def open_span(self, span: SegmentSpan, stored: Buffer) -> bytearray:
        """Plaintext of all segments of a span, of which none is given out unless all open."""
        if len(stored) != span.end - span.start:
            raise SegmentCorrupt(
                f"{self._name} holds {len(stored)} bytes instead of {span.end - span.start}"
                f" at offset {span.start}"
            )
        tags = TAG_LENGTH * (span.last - span.first + 1)
        plain = bytearray(len(stored) - tags)
        with memoryview(stored) as source, memoryview(plain) as target:
            written = 0
            for index in range(span.first, span.last + 1):
                one = self.span(index, index)
                sealed = source[one.start - span.start : one.end - span.start]
                room = target[written : written + len(sealed) - TAG_LENGTH]
                self._open_into(one, sealed, room)
                written += len(room)
        return plain

    def open_range(self, start: int, end: int, fetch: Fetch) -> Buffer:
        """Plaintext [start, end), from one fetch of the segments around it."""
        if not 0 <= start <= end <= self._plain_length:
            raise SegmentCorrupt(
                f"{self._name} has no plaintext {start}-{end}, it is {self._plain_length} long"
            )
        if start == end:
            return b""
        span = self._geometry.stored_span_of_plain(start, end, self._stored_length)
        plain = self.open_span(span, fetch(span.start, span.end))
        offset = start - self._geometry.plain_start(span.first)
        if offset == 0 and end - start == len(plain):
            return plain
        return memoryview(plain)[offset : offset + end - start]

    def open_stream(self, fetch: Fetch, window: int = STREAM_WINDOW) -> Iterator[bytearray]:
        """The whole plaintext in order, `window` segments to a fetch."""
        for first in range(0, self._last + 1, window):
            span = self.span(first, min(first + window - 1, self._last))
            yield self.open_span(span, fetch(span.start, span.end))

    def _open_into(self, one: SegmentSpan, sealed: memoryview, room: memoryview) -> None:
        last = one.last == self._last
        if not (last or self._length_proven):
            raise PgkeepError(f"the last segment of {self._name} must be opened first")
        nonce = _nonce(self._prefix, one.last, last=last)
        try:
            self._cipher.decrypt_into(nonce, sealed, None, room)
        except InvalidTag:
            raise SegmentCorrupt(
                f"segment {one.last} of {self._name} at offset {one.start} does not authenticate"
            ) from None
        self._length_proven = self._length_proven or last


def open_object(
    data_key: bytes,
    aad: bytes,
    fetch: Fetch,
    stored_length: int,
    *,
    name: str,
    geometry: Geometry = TINK_1MB,
) -> SegmentOpener:
    """An opener whose length is proven: reads the header and the last segment, in two fetches."""
    geometry.plaintext_length(stored_length)
    header = fetch(0, HEADER_LENGTH)
    opener = SegmentOpener(data_key, aad, header, stored_length, name=name, geometry=geometry)
    span = opener.last_segment
    opener.open_span(span, fetch(span.start, span.end))
    return opener


def open_whole(
    data_key: bytes,
    aad: bytes,
    stored: Buffer,
    stored_length: int,
    *,
    name: str,
    geometry: Geometry = TINK_1MB,
) -> bytes:
    """Plaintext of an object that is in memory whole; its length must be the document's."""
    if len(stored) != stored_length:
        raise SegmentCorrupt(f"{name} is {len(stored)} bytes long instead of {stored_length}")
    view = memoryview(stored)

    def fetch(start: int, end: int) -> memoryview:
        return view[start:end]

    opener = open_object(data_key, aad, fetch, stored_length, name=name, geometry=geometry)
    return b"".join(opener.open_stream(fetch))


def _cipher(data_key: bytes, salt: bytes, aad: bytes) -> AESGCM:
    if len(data_key) != DATA_KEY_LENGTH:
        raise PgkeepError(f"a data key has {DATA_KEY_LENGTH} bytes, not {len(data_key)}")
    hkdf = HKDF(algorithm=SHA256(), length=DATA_KEY_LENGTH, salt=salt, info=aad)
    return AESGCM(hkdf.derive(data_key))


def _nonce(prefix: bytes, index: int, *, last: bool) -> bytes:
    return prefix + struct.pack(">IB", index, last)


def _split_header(header: bytes, name: str) -> tuple[bytes, bytes]:
    if len(header) != HEADER_LENGTH or header[0] != HEADER_LENGTH:
        raise SegmentCorrupt(f"{name} does not start with a header of {HEADER_LENGTH} bytes")
    return header[1 : 1 + SALT_LENGTH], header[1 + SALT_LENGTH :]
