"""INCREMENTAL files: their headers, read as their bytes go by.

A header is the magic, the number of blocks, the truncation length, and the blocks' numbers within
the file: words of four bytes in the server's order, which is little-endian everywhere today
(basebackup_incremental.c, sendFile; reconstruct.c, make_incremental_rfile).
"""

import sys
from array import array
from itertools import islice
from operator import ge
from typing import Final

from shared.domain.backup_index import IncrementalBlocks
from shared.errors import Corrupt

MAGIC: Final = 0xD3AE1F0D
# RELSEG_SIZE for files of 1 GiB and blocks of 8 KiB. --with-segsize can make it more, but no server
# that anybody packages does; the bound keeps a damaged header from asking for gigabytes.
BLOCKS_MAX: Final = 1 << 17
_WORD: Final = 4
_FIXED: Final = 3 * _WORD


class IncrementalFileInvalid(Corrupt):
    """An INCREMENTAL file whose header PostgreSQL did not write, or that has another size."""

    code = "incremental-file-invalid"
    hint = "Take a full backup, and look at the server's file system."


class HeaderReader:
    """Collects the header of one INCREMENTAL file of `size` bytes, fed in pieces of any size."""

    def __init__(self, path: bytes, size: int, block_size: int) -> None:
        self._path, self._size, self.block_size = path, size, block_size
        self._raw = bytearray()
        self._wanted = _FIXED
        if size < _FIXED:
            raise self._invalid(f"it has {size} bytes")

    @property
    def missing(self) -> int:
        """Bytes that are still to come; 0 when `result` may be asked for."""
        return self._wanted - len(self._raw)

    def feed(self, piece: memoryview) -> int:
        """How much of it was taken. Raises IncrementalFileInvalid."""
        before = len(self._raw)
        while self.missing and piece:
            taken = piece[: self.missing]
            self._raw += taken
            piece = piece[len(taken) :]
            if len(self._raw) == _FIXED:
                self._check_fixed()
        return len(self._raw) - before

    def result(self) -> IncrementalBlocks:
        """Raises IncrementalFileInvalid."""
        words = self._words()
        blocks = words[3:]
        if any(map(ge, blocks, islice(blocks, 1, None))):
            raise self._invalid("its blocks are not in order")
        if blocks and blocks[-1] >= BLOCKS_MAX:
            raise self._invalid(f"it names block {blocks[-1]}")
        held = IncrementalBlocks(words[2], blocks)
        if held.file_size(self.block_size) != self._size:
            raise self._invalid(f"it has {self._size} bytes for {len(blocks)} blocks")
        return held

    def _check_fixed(self) -> None:
        magic, count, truncation = self._words()
        if magic != MAGIC:
            raise self._invalid(f"it begins with {magic:#x}")
        self._wanted = _FIXED + count * _WORD
        if count > BLOCKS_MAX or truncation > BLOCKS_MAX or self._wanted > self._size:
            raise self._invalid(f"it names {count} blocks and a truncation length of {truncation}")

    def _words(self) -> "array[int]":
        words = array("I", bytes(self._raw))
        if sys.byteorder == "big":
            words.byteswap()
        return words

    def _invalid(self, why: str) -> IncrementalFileInvalid:
        return IncrementalFileInvalid(f"{self._path!r} is no incremental file: {why}")
