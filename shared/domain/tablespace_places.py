"""Where the tablespaces of a restored cluster lie: never two on one path, none on the data."""

from collections.abc import Mapping
from dataclasses import dataclass
from posixpath import normpath

from shared.domain.not_restorable import NotRestorable


@dataclass(frozen=True, slots=True)
class TablespaceLocation:
    """Where tablespace `oid` goes; `in_place` ones are plain directories below pg_tblspc."""

    oid: str
    original: str
    location: str
    in_place: bool


def place_tablespaces(
    originals: Mapping[str, str], mapping: Mapping[str, str], data_directory: str
) -> list[TablespaceLocation]:
    """Where each tablespace goes: `originals` maps OID to source path, `mapping` old path to new.

    A path that starts with pg_tblspc/ is an in-place tablespace and stays inside. Raises
    NotRestorable for a mapping that is relative, unknown, shared by two, or overlaps.
    """
    problems = [
        f"mapping of unknown tablespace {old}" for old in mapping.keys() - set(originals.values())
    ]
    places = []
    for oid, original in sorted(originals.items()):
        in_place = original.startswith("pg_tblspc/")
        places.append(TablespaceLocation(oid, original, mapping.get(original, original), in_place))
    outside = [place for place in places if not place.in_place]
    problems += [
        f"tablespace path {p.location} is not absolute" for p in outside if p.location[:1] != "/"
    ]
    taken = [data_directory, *(place.location for place in outside)]
    problems += [
        f"{first} and {second} overlap"
        for number, first in enumerate(taken)
        for second in taken[number + 1 :]
        if _overlap(first, second)
    ]
    if problems:
        raise NotRestorable("; ".join(problems), hint="Correct --tablespace-mapping OLD=NEW.")
    return places


def _overlap(first: str, second: str) -> bool:
    one, two = _spelled_out(first), _spelled_out(second)
    return one.startswith(two) or two.startswith(one)


def _spelled_out(path: str) -> str:
    """Without `..`, `.` and doubled slashes, behind which two paths could look apart."""
    return "/" + "".join(f"{part}/" for part in normpath(path).split("/") if part)
