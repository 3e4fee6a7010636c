"""The index of a backup as JSON lines: a head, then volumes, then members in stream order.

JSON lines because a stressed person can read them with `jq`, and because neither writer nor reader
needs the whole text at once: a backup of 100,000 files keeps its index under the memory bound.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared.domain.backup_index import BackupIndex, IndexedMember, IndexedVolume, MemberKind
from shared.errors import Corrupt

FORMAT = "pgkeep-index-1"


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
        }
    )


def read_index(chunks: Iterable[bytes]) -> BackupIndex:
    """From the index's plaintext in pieces of any size. Raises IndexInvalid."""
    label = ""
    volumes: list[IndexedVolume] = []
    members: list[IndexedMember] = []
    for number, text in enumerate(_lines(chunks), 1):
        match _parse(text, number):
            case _Head() as head:
                label = head.label
            case _Volume() as volume:
                volumes.append(_volume(volume))
            case _Member() as member:
                members.append(_member(member, number))
    if not label:
        raise IndexInvalid("the index has no head")
    return BackupIndex(label, tuple(volumes), tuple(members))


def _dump(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
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
    )
