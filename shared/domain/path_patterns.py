"""Choosing files by their paths in the data directory, with patterns as a shell has them."""

from fnmatch import fnmatchcase
from posixpath import normpath

from shared.errors import InvalidInput


class PathPatternInvalid(InvalidInput):
    """A pattern that no path in a data directory can match."""

    code = "path-pattern-invalid"
    hint = "Write it as pg_relation_filepath() does: base/16384/2619, base/16384/2619*, pg_xact."


def parse_pattern(pattern: bytes) -> bytes:
    """Raises PathPatternInvalid."""
    plain = pattern.removesuffix(b"/")
    if plain != normpath(plain) or plain.split(b"/")[0] in {b"", b".", b".."}:
        raise PathPatternInvalid(f"{pattern!r} is not a path inside the data directory")
    return plain


def matches(pattern: bytes, path: bytes) -> bool:
    """Part by part; a pattern with fewer parts than the path names a directory above it."""
    wanted, parts = pattern.split(b"/"), path.split(b"/")
    return len(wanted) <= len(parts) and all(map(fnmatchcase, parts, wanted))
