"""libpq connection service files, read by us: libpq itself must not see any, nor its environment.

The format is that of PostgreSQL's chapter "The Connection Service File": sections and `key=value`.
"""

from pathlib import Path

from psycopg.conninfo import make_conninfo

from shared.errors import ConninfoInvalid


def service_conninfo(path: Path, service: str) -> str:
    """The section of this name as a conninfo string. Raises ConninfoInvalid, quoting no value."""
    parameters = dict(_entries(path, service))
    if not parameters:
        raise ConninfoInvalid(f"{path} has no service {service!r}, or it is empty")
    return make_conninfo("", **parameters)


def _entries(path: Path, service: str) -> list[tuple[str, str]]:
    found, section = [], ""
    for number, line in enumerate(_lines(path), 1):
        text = line.strip()
        if text.startswith("[") and text.endswith("]"):
            section = text[1:-1]
        elif section == service and text and not text.startswith("#"):
            key, mark, value = text.partition("=")
            if not mark:
                raise ConninfoInvalid(f"{path}, line {number}: not key=value")
            found.append((key.strip(), value.strip()))
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConninfoInvalid(f"cannot read the service file {path}: {error}") from None
