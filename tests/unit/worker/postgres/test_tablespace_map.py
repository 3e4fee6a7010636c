"""tablespace_map of a restored copy leads to the copy's own tablespaces, and to no others."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ScratchRefused
from worker.postgres.recovery_settings import TABLESPACE_MAP, relink_tablespaces, relinked

PATHS = st.binary(min_size=1, max_size=20).filter(lambda path: b"\0" not in path)
MAPS = st.dictionaries(st.integers(1, 2**32 - 1).map(lambda n: b"%d" % n), PATHS, max_size=4)


def written(places: dict[bytes, bytes]) -> bytes:
    """As do_pg_backup_start of xlog.c writes it: a backslash before what would end or escape."""
    lines = []
    for oid, path in places.items():
        escaped = b"".join(b"\\" + bytes([c]) if c in b"\n\r\\" else bytes([c]) for c in path)
        lines.append(oid + b" " + escaped + b"\n")
    return b"".join(lines)


def read(text: bytes) -> dict[bytes, bytes]:
    """As read_tablespace_map of xlogrecovery.c reads it, character by character."""
    found: dict[bytes, bytes] = {}
    line, escaped = b"", False
    for number in text:
        character = bytes([number])
        if not escaped and character in {b"\n", b"\r"}:
            oid, _, path = line.partition(b" ")
            found[oid], line = path, b""
        elif not escaped and character == b"\\":
            escaped = True
        else:
            line, escaped = line + character, False
    assert not line
    return found


@given(MAPS, st.data())
def test_every_tablespace_that_moved_is_found_at_its_new_place(
    places: dict[bytes, bytes], data: st.DataObject
) -> None:
    moved = {oid: data.draw(PATHS) for oid in places if data.draw(st.booleans())}
    assert read(relinked(written(places), moved)) == {**places, **moved}


@given(MAPS)
def test_what_stays_where_it_was_is_kept_byte_for_byte(places: dict[bytes, bytes]) -> None:
    assert relinked(written(places), places) == written(places)
    assert relinked(written(places), {}) == written(places)


def test_r11_a_map_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"1 /theirs\n")
    data = tmp_path / "data"
    data.mkdir()
    (data / TABLESPACE_MAP).symlink_to(victim)
    with pytest.raises(ScratchRefused):
        relink_tablespaces(data, {"1": "/ours"})
    assert victim.read_bytes() == b"1 /theirs\n"


def test_a_copy_without_tablespaces_gets_no_map(tmp_path: Path) -> None:
    relink_tablespaces(tmp_path, {})
    assert list(tmp_path.iterdir()) == []
