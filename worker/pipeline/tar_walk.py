"""Walks the tar streams of BASE_BACKUP without holding them; refuses what PostgreSQL never sends.

PostgreSQL writes plain ustar (src/port/tar.c): names and link targets within their fields, octal
numbers, or base-256 from 8 GiB on; directories and symbolic links end in a slash. Since version 15
a server ends a stream behind the last member; older ones, and clients, add two zero blocks.

What a member may be is the same for every reader, so it is decided here: regular files,
directories, and symbolic links only as `pg_tblspc/<oid>`; relative, plain, unique paths that pass
through directories alone. Sizes and offsets are bytes of the tar stream.
"""

import re
from dataclasses import dataclass

from shared.domain.backup_index import MemberKind
from shared.errors import TarMalformed, TarMemberRefused

BLOCK = 512
_ZERO_BLOCK = bytes(BLOCK)
_MAGIC = b"ustar\x0000"
_CHECKSUM_FIELD = slice(148, 156)
_BASE_256 = 0x80
_MODE_BITS = 0o7777
_MAX_NUMBER = 1 << 63  # off_t
_LINK_PATH = re.compile(rb"pg_tblspc/[1-9][0-9]*")
_ODD_PART = re.compile(rb"(?:^|/)\.{0,2}(?:/|\Z)")  # an empty part, `.` or `..`

Buffer = bytes | bytearray | memoryview

_KINDS = {b"0": MemberKind.FILE, b"2": MemberKind.SYMLINK, b"5": MemberKind.DIRECTORY}


@dataclass(frozen=True, slots=True)
class TarMember:
    """`data_offset` is where the data begins in the stream; path and target are raw bytes.

    `mode` is the sender's, with every permission bit; `mtime` is in seconds since the epoch.
    """

    path: bytes
    kind: MemberKind
    size: int
    mode: int
    mtime: int
    link_target: bytes
    data_offset: int

    @property
    def data_end(self) -> int:
        return self.data_offset + self.size


class TarWalker:
    """Finds the members of one tar stream, fed in chunks of any size; skips data by arithmetic."""

    def __init__(self) -> None:
        self._fed = 0
        self._next_header = 0
        self._header = bytearray()
        self._paths = _PathLedger()
        self._ended = False

    @property
    def at_boundary(self) -> bool:
        """Whether the next byte belongs to no member that has begun."""
        return self._fed == self._next_header

    def feed(self, chunk: Buffer) -> list[TarMember]:
        """The members whose headers are now complete. Raises TarMalformed, TarMemberRefused."""
        begin = self._fed
        self._fed += len(chunk)
        members: list[TarMember] = []
        while self._next_header + len(self._header) < self._fed:
            position = self._next_header + len(self._header) - begin
            self._header += chunk[position : position + BLOCK - len(self._header)]
            if len(self._header) < BLOCK:
                break
            members += self._take(bytes(self._header))
            self._header.clear()
        return members

    def finish(self) -> None:
        """Raises TarMalformed when the stream stops inside a header, a member or its padding."""
        if self._fed != self._next_header:
            raise TarMalformed(f"the tar stream stops at {self._fed}, inside a header or a member")

    def _take(self, header: bytes) -> list[TarMember]:
        offset = self._next_header
        if header == _ZERO_BLOCK:
            self._ended = True
            self._next_header += BLOCK
            return []
        if self._ended:
            raise TarMalformed(f"the tar stream goes on at {offset}, behind its end")
        member = _member(header, offset)
        self._paths.admit(member)
        self._next_header = member.data_end + -member.size % BLOCK
        return [member]


class _PathLedger:
    """Every path so far: no path twice, none below anything but a directory."""

    def __init__(self) -> None:
        self._kinds: dict[bytes, MemberKind] = {}
        self._parents: set[bytes] = set()

    def admit(self, member: TarMember) -> None:
        if member.path in self._kinds:
            raise TarMemberRefused(f"tar member {member.path!r} appears twice")
        if member.kind is not MemberKind.DIRECTORY and member.path in self._parents:
            raise TarMemberRefused(f"tar member {member.path!r} replaces a directory")
        self._pass_through_parents(member.path)
        self._kinds[member.path] = member.kind

    def _pass_through_parents(self, path: bytes) -> None:
        """A parent that was passed once is a directory for good, and so are those above it."""
        parent = path.rpartition(b"/")[0]
        while parent and parent not in self._parents:
            if self._kinds.get(parent, MemberKind.DIRECTORY) is not MemberKind.DIRECTORY:
                raise TarMemberRefused(f"tar member {path!r} lies below {parent!r}, no directory")
            self._parents.add(parent)
            parent = parent.rpartition(b"/")[0]


def _member(header: bytes, offset: int) -> TarMember:
    _check_header(header, offset)
    kind = _KINDS.get(header[156:157])
    path = _path(header, offset)
    if kind is None:
        raise TarMemberRefused(f"tar member {path!r} has type {header[156:157]!r}")
    member = TarMember(
        path=path if kind is MemberKind.FILE else path.removesuffix(b"/"),
        kind=kind,
        size=_number(header[124:136], offset),
        mode=_number(header[100:108], offset) & _MODE_BITS,
        mtime=_number(header[136:148], offset),
        link_target=_text(header[157:257], offset),
        data_offset=offset + BLOCK,
    )
    _check_member(member)
    return member


def _check_header(header: bytes, offset: int) -> None:
    if header[257:265] != _MAGIC:
        raise TarMalformed(f"there is no ustar header at {offset}")
    expected = sum(header) - sum(header[_CHECKSUM_FIELD]) + 8 * ord(" ")
    if _number(header[_CHECKSUM_FIELD], offset) != expected:
        raise TarMalformed(f"the tar header at {offset} does not match its checksum")


def _check_member(member: TarMember) -> None:
    if _ODD_PART.search(member.path):
        raise TarMemberRefused(f"tar member {member.path!r} is no plain relative path")
    if member.kind is not MemberKind.FILE and member.size:
        raise TarMemberRefused(f"tar member {member.path!r} is a {member.kind} with data")
    is_link = member.kind is MemberKind.SYMLINK
    if is_link and not _LINK_PATH.fullmatch(member.path):
        raise TarMemberRefused(f"tar member {member.path!r} is a link outside pg_tblspc")
    if is_link != bool(member.link_target):
        raise TarMemberRefused(f"tar member {member.path!r} is a {member.kind} with a wrong target")


def _path(header: bytes, offset: int) -> bytes:
    """Without the `./` that PostgreSQL puts before pg_wal/archive_status and pg_wal/summaries."""
    prefix = _text(header[345:500], offset)
    name = _text(header[:100], offset)
    path = prefix + b"/" + name if prefix else name
    return path.removeprefix(b"./")


def _text(field: bytes, offset: int) -> bytes:
    """Up to the first NUL; bytes behind it would be read differently by other programs."""
    text, _, rest = field.partition(b"\0")
    if rest.strip(b"\0"):
        raise TarMalformed(f"the tar header at {offset} has a NUL inside a name")
    return text


def _number(field: bytes, offset: int) -> int:
    if field[0] == _BASE_256:
        value = int.from_bytes(field[1:], "big")
    else:
        digits = field.rstrip(b" \0").lstrip(b" ")
        if digits.strip(b"01234567"):
            raise TarMalformed(f"the tar header at {offset} has {field!r} where a number belongs")
        value = int(digits or b"0", 8)
    if value >= _MAX_NUMBER:
        raise TarMalformed(f"the tar header at {offset} has a number of {value}")
    return value
