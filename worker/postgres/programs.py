"""PostgreSQL's own programs: finding those of a major version, running them, pg_controldata.

Programs get an argument list, never a shell; an environment of two variables, so that no PG*
variable of ours changes what they do; a deadline; and, because PostgreSQL refuses to run as root,
another account when we are root.
"""

import os
import pwd
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from shared.domain.lsn import Lsn
from shared.errors import ProgramFailed, ProgramMissing, ProgramTimeout, ScratchRefused

DEBIAN_DIRECTORY: Final = Path("/usr/lib/postgresql")  # postgresql-common: <here>/<major>/bin
NEEDED: Final = ("postgres", "pg_controldata", "pg_checksums", "pg_amcheck")
# C: messages in English, because some are read here; PATH: libraries' helpers, never our programs.
ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {"LC_ALL": "C", "PATH": "/usr/bin:/bin", "TZ": "UTC"}
)
_VERSION: Final = re.compile(r"\(PostgreSQL\) (\d+)\S*")
_LAST_WORDS: Final = 2000  # characters of a program's output that a message quotes


@dataclass(frozen=True, slots=True)
class Account:
    """Whom PostgreSQL runs as when pgkeep itself is root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Programs:
    """One installation. `version` as the programs print it: `17.10`, `18beta1`."""

    bin_directory: Path
    major: int
    version: str

    def path(self, name: str) -> str:
        return str(self.bin_directory / name)


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ran to its end."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True, slots=True)
class ControlData:
    """global/pg_control, as pg_controldata prints it. Sizes in bytes; zero LSNs mean "none"."""

    catalog_version: int
    system_identifier: str
    state: str
    checkpoint: Lsn
    timeline: int
    minimum_recovery_end: Lsn
    block_size: int
    wal_segment_size: int
    page_checksums: bool
    max_connections: int
    max_worker_processes: int
    max_wal_senders: int
    max_prepared_transactions: int
    max_locks_per_transaction: int


def account_named(name: str | None) -> Account | None:
    """The account to change to: none unless we are root. Raises ScratchRefused when root has none.

    Without a name, `postgres` or else `nobody` is taken.
    """
    if os.geteuid() != 0:
        return None
    for candidate in (name,) if name else ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(candidate)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise ScratchRefused(
        f"PostgreSQL does not run as root, and there is no other account {name or 'postgres'!r}",
        hint="Run pgkeep as an ordinary user, or name an account in drill.run_as.",
    )


def find_programs(major: int, directories: Iterable[Path]) -> Programs:
    """The first directory with a whole set of that major version. Raises ProgramMissing.

    Asks the programs themselves: a directory's name proves nothing.
    """
    tried = [*directories, DEBIAN_DIRECTORY / str(major) / "bin"]
    for directory in tried:
        if not all(os.access(directory / name, os.X_OK) for name in NEEDED):
            continue
        programs = _identify(directory)
        if programs.major == major:
            return programs
    places = ", ".join(map(str, tried))
    raise ProgramMissing(f"no PostgreSQL {major} programs ({', '.join(NEEDED)}) in {places}")


def run_program(
    arguments: Sequence[str],
    *,
    timeout: float,
    account: Account | None = None,
    environment: Mapping[str, str] = ENVIRONMENT,
) -> Finished:
    """Run to the end, whatever the exit status. Raises ProgramMissing, ProgramTimeout."""
    try:
        done = subprocess.run(  # noqa: S603 - an argument list; the program comes from Programs
            list(arguments),
            check=False,
            cwd="/",
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except subprocess.TimeoutExpired:
        raise ProgramTimeout(f"{arguments[0]} did not end in {timeout:g} s") from None
    except OSError as error:
        raise ProgramMissing(f"cannot run {arguments[0]}: {error.strerror}") from None
    return Finished(done.returncode, _text(done.stdout), _text(done.stderr))


def require_success(arguments: Sequence[str], finished: Finished) -> str:
    """The output of a program that exited with 0. Raises ProgramFailed with its last words."""
    if finished.status == 0:
        return finished.output
    words = (finished.errors.strip() or finished.output.strip())[-_LAST_WORDS:]
    raise ProgramFailed(
        f"{Path(arguments[0]).name} exited with {finished.status}: {words or 'no message'}"
    )


def read_control_data(
    programs: Programs, data_directory: Path, *, account: Account | None, timeout: float = 30
) -> ControlData:
    """Raises ProgramFailed when pg_control is missing or broken."""
    arguments = [programs.path("pg_controldata"), "-D", str(data_directory)]
    finished = run_program(arguments, timeout=timeout, account=account)
    if "CRC checksum does not match" in finished.errors + finished.output:
        raise ProgramFailed(f"pg_control of {data_directory} does not match its checksum")
    return parse_control_data(require_success(arguments, finished))


def parse_control_data(text: str) -> ControlData:
    """Reads the English output of PostgreSQL 15 to 18. Raises ProgramFailed."""
    fields = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    try:
        return ControlData(
            catalog_version=int(fields["Catalog version number"]),
            system_identifier=fields["Database system identifier"],
            state=fields["Database cluster state"],
            checkpoint=Lsn.parse(fields["Latest checkpoint location"]),
            timeline=int(fields["Latest checkpoint's TimeLineID"]),
            minimum_recovery_end=Lsn.parse(fields["Minimum recovery ending location"]),
            block_size=int(fields["Database block size"]),
            wal_segment_size=int(fields["Bytes per WAL segment"]),
            page_checksums=fields["Data page checksum version"] != "0",
            max_connections=int(fields["max_connections setting"]),
            max_worker_processes=int(fields["max_worker_processes setting"]),
            max_wal_senders=int(fields["max_wal_senders setting"]),
            max_prepared_transactions=int(fields["max_prepared_xacts setting"]),
            max_locks_per_transaction=int(fields["max_locks_per_xact setting"]),
        )
    except (KeyError, ValueError) as error:
        raise ProgramFailed(f"pg_controldata's output lacks or garbles {error}") from None


def _identify(directory: Path) -> Programs:
    arguments = [str(directory / "postgres"), "--version"]
    output = require_success(arguments, run_program(arguments, timeout=30))
    match = _VERSION.search(output)
    if match is None:
        raise ProgramFailed(f"{arguments[0]} --version says {output.strip()!r}")
    version = match[0].removeprefix("(PostgreSQL) ")
    return Programs(directory, int(match[1]), version)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
