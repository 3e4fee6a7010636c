"""Tar headers as BASE_BACKUP writes them (PostgreSQL's src/port/tar.c), and as tar_walk reads them.

Numbers of owner and group are 0: a backup's index does not keep them, for they mean nothing on
another host. The names beside them are those that PostgreSQL always writes.
"""

from typing import Final

from shared.domain.backup_index import MemberKind
from shared.errors import TarMemberRefused
from worker.pipeline.tar_walk import BLOCK

# tarCreateHeader: TAR_NAME_TOO_LONG and TAR_SYMLINK_TOO_LONG.
_LONGEST_NAME: Final = 99
_OWNER: Final = b"postgres"
_TYPES: Final = {MemberKind.FILE: b"0", MemberKind.SYMLINK: b"2", MemberKind.DIRECTORY: b"5"}
_CHECKSUM_AT, _CHECKSUM_LENGTH = 148, 8


def tar_header(
    path: bytes,
    kind: MemberKind,
    *,
    size: int = 0,
    mode: int,
    mtime: int,
    link_target: bytes = b"",
) -> bytes:
    """One block. Raises TarMemberRefused for a name that PostgreSQL would not send either."""
    for name in (path, link_target):
        if len(name) > _LONGEST_NAME:
            raise TarMemberRefused(f"tar member {path!r} has a name of {len(name)} bytes")
    name = path if kind is MemberKind.FILE else path + b"/"
    fields = (
        name.ljust(100, b"\0"),
        _number(mode, 8),
        _number(0, 8),
        _number(0, 8),
        _number(size, 12),
        _number(mtime, 12),
        b" " * _CHECKSUM_LENGTH,
        _TYPES[kind],
        link_target.ljust(100, b"\0"),
        b"ustar\x0000",
        _OWNER.ljust(32, b"\0"),
        _OWNER.ljust(32, b"\0"),
        _number(0, 8),
        _number(0, 8),
    )
    header = b"".join(fields).ljust(BLOCK, b"\0")
    checksum = _number(sum(header), _CHECKSUM_LENGTH)
    return header[:_CHECKSUM_AT] + checksum + header[_CHECKSUM_AT + _CHECKSUM_LENGTH :]


def tar_padding(size: int) -> bytes:
    """What follows `size` bytes of a member's data."""
    return bytes(-size % BLOCK)


def _number(value: int, width: int) -> bytes:
    """Octal with a space behind it, or in base 256 what does not fit (print_tar_number)."""
    if value < 1 << 3 * (width - 1):
        return b"%0*o " % (width - 1, value)
    return b"\x80" + value.to_bytes(width - 1, "big")
