"""The index of a backup as JSON lines: a head, then volumes, then members in stream order.

JSON lines because a stressed person can read them with `jq`, and because neither writer nor reader
needs the whole text at once: a backup of 100,000 files keeps its index under the memory bound.
"""

import json
import sys
from array import array
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from operator import ge
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared.domain.backup_index import (
    BackupIndex,
    IncrementalBlocks,
    IndexedMember,
    IndexedVolume,
    MemberKind,
    MemberTable,
)
from shared.errors import Corrupt

FORMAT = "pgkeep-index-1"
# Blocks of a relation's file: PostgreSQL's largest --with-segsize in its smallest blocks is less.
_BLOCKS_MAX = (1 << 31) - 1
_WORD = 4


class IndexInvalid(Corrupt):
    """An index that authenticated but does not read as one."""

    code = "index-invalid"


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Head(_Line):
    line: Literal["head"] = "head"
    format: Literal["pgkeep-index-1"] = "pgkeep-index-1"
    label: str


class _Volume(_Line):
    line: Literal["volume"] = "volume"
    name: str
    archive: str
    number: int
    start: int = Field(ge=0)
    stored_size: int = Field(ge=0)
    frames: tuple[tuple[int, int], ...]


class _Incremental(BaseModel):
    """Block numbers are too many for JSON: base64 of them, four bytes each, little-endian."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    truncation: int = Field(ge=0, le=_BLOCKS_MAX)
    blocks: str


class _Member(_Line):
    line: Literal["member"] = "member"
    archive: str
    path: str | None = None
    encoded_path: str | None = Field(None, pattern=r"^(?:[0-9a-f]{2})+$")
    kind: MemberKind
    size: int = Field(ge=0)
    mode: int = Field(ge=0, le=0o7777)
    offset: int = Field(ge=0)
    target: str = Field("", pattern=r"^(?:[0-9a-f]{2})*$")
    incremental: _Incremental | None = None


_LINE: TypeAdapter[_Head | _Volume | _Member] = TypeAdapter(
    Annotated[_Head | _Volume | _Member, Field(discriminator="line")]
)


def head_line(label: str) -> bytes:
    return _dump({"line": "head", "format": FORMAT, "label": label})


def volume_line(volume: IndexedVolume) -> bytes:
    frames = list(zip(volume.frame_stored, volume.frame_plain, strict=True))
    return _dump(
        {
            "line": "volume",
            "name": volume.name,
            "archive": volume.archive,
            "number": volume.number,
            "start": volume.start,
            "stored_size": volume.stored_size,
            "frames": frames,
        }
    )


def member_line(member: IndexedMember) -> bytes:
    """File names are bytes: those that are not UTF-8 are written in hex, as PostgreSQL does."""
    try:
        path = {"path": member.path.decode("utf-8")}
    except UnicodeDecodeError:
        path = {"encoded_path": member.path.hex()}
    held = member.incremental
    return _dump(
        {
            "line": "member",
            "archive": member.archive,
            **path,
            "kind": member.kind.value,
            "size": member.size,
            "mode": member.mode,
            "offset": member.offset,
            "target": member.target.hex(),
            **({} if held is None else {"incremental": _incremental_object(held)}),
        }
    )


def read_index(chunks: Iterable[bytes], wanted: Mapping[bytes, bytes] | None = None) -> BackupIndex:
    """From the index's plaintext in pieces of any size. Raises IndexInvalid.

    `wanted` is for a chain's older links, of which only the versions of the newest one's files are
    needed: it maps their whole paths to the paths of their members there, which are shared.
    """
    label = ""
    volumes: list[IndexedVolume] = []
    members = MemberTable()
    for number, text in enumerate(_lines(chunks), 1):
        match _parse(text, number):
            case _Head() as head:
                label = head.label
            case _Volume() as volume:
                volumes.append(_volume(volume))
            case _Member() as line:
                member = _member(line, number)
                if wanted is None:
                    members.append(member)
                elif member.whole_path in wanted:
                    members.append(member, known=wanted[member.whole_path])
    if not label:
        raise IndexInvalid("the index has no head")
    return BackupIndex(label, tuple(volumes), members)


def _incremental_object(held: IncrementalBlocks) -> dict[str, object]:
    words = array("I", held.blocks)
    if sys.byteorder == "big":
        words.byteswap()
    return {
        "truncation": held.truncation_length,
        "blocks": b64encode(words.tobytes()).decode("ascii"),
    }


def _dump(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        text, begin = rest + chunk, 0
        while end := text.find(b"\n", begin) + 1:
            yield text[begin : end - 1]
            begin = end
        rest = text[begin:]
    if rest:
        raise IndexInvalid("the index ends inside a line")


def _parse(line: bytes, number: int) -> _Head | _Volume | _Member:
    try:
        return _LINE.validate_json(line)
    except ValidationError as error:
        what = error.errors(include_url=False, include_input=False)[0]["type"]
        raise IndexInvalid(f"line {number} of the index: {what}") from None


def _volume(line: _Volume) -> IndexedVolume:
    return IndexedVolume(
        name=line.name,
        archive=line.archive,
        number=line.number,
        start=line.start,
        stored_size=line.stored_size,
        frame_stored=tuple(stored for stored, _ in line.frames),
        frame_plain=tuple(plain for _, plain in line.frames),
    )


def _member(line: _Member, number: int) -> IndexedMember:
    if (line.path is None) == (line.encoded_path is None):
        raise IndexInvalid(f"line {number} of the index: one of path and encoded_path is needed")
    path = bytes.fromhex(line.encoded_path) if line.encoded_path else (line.path or "").encode()
    return IndexedMember(
        archive=line.archive,
        path=path,
        kind=line.kind,
        size=line.size,
        mode=line.mode,
        offset=line.offset,
        target=bytes.fromhex(line.target),
        incremental=None if line.incremental is None else _incremental(line.incremental, number),
    )


def _incremental(line: _Incremental, number: int) -> IncrementalBlocks:
    try:
        raw = a2b_base64(line.blocks, strict_mode=True)
    except ValueError:
        raise IndexInvalid(f"line {number} of the index: its blocks are not base64") from None
    if len(raw) % _WORD:
        raise IndexInvalid(f"line {number} of the index: its blocks end inside a number")
    blocks = array("I", raw)
    if sys.byteorder == "big":
        blocks.byteswap()
    if any(map(ge, blocks, islice(blocks, 1, None))) or (blocks and blocks[-1] > _BLOCKS_MAX):
        raise IndexInvalid(f"line {number} of the index: its blocks are not in order")
    return IncrementalBlocks(line.truncation, blocks)
