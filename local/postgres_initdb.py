"""Making a cluster: data directory, passwords, settings and the role that takes backups."""

import os
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from local.unprivileged import (
    Account,
    hand_over,
    identity,
    make_reachable_directory,
    server_account,
)
from shared.errors import Unavailable

SUPERUSER = "postgres"
BACKUP_USER = "backup_user"
# initdb and stand-alone mode take a second or two; a busy machine may take longer.
_LIMIT_S = 120
_CHECKSUMS_DEFAULT_SINCE = 18
_SUMMARIES_SINCE = 17


class InitdbFailed(Unavailable):
    """A new cluster could not be made."""

    code = "initdb-failed"
    hint = "The message ends with what PostgreSQL's program said."


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What a new cluster shall be like; `settings` go into its postgresql.conf, last."""

    checksums: bool = True
    wal_segment_mb: int = 16
    fsync: bool = True
    backup_user_reads_data: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


def create_cluster(programs: Path, directory: Path, options: ClusterOptions) -> None:
    """Fill `directory`: `data` belongs to PostgreSQL's account, `passfile` (0600) to us.

    Raises InitdbFailed, AccountMissing, DirectoryOutOfReach.
    """
    account = server_account()
    make_reachable_directory(directory, account)
    data = directory / "data"
    data.mkdir(0o700)
    hand_over(data, account)
    passwords = {user: secrets.token_urlsafe(24) for user in (SUPERUSER, BACKUP_USER)}
    write_passfile(directory / "passfile", passwords)
    _run_initdb(programs, data, options, passwords[SUPERUSER])
    append_settings(data, _settings(major_of(data), options))
    _make_backup_user(programs, data, options, passwords[BACKUP_USER])


def major_of(data: Path) -> int:
    """The major version that made this data directory."""
    return int((data / "PG_VERSION").read_text("ascii"))


def append_settings(data: Path, settings: Mapping[str, str]) -> None:
    """Add to postgresql.conf, where the last word wins; takes effect on reload or start."""
    quoted = {name: value.replace("'", "''") for name, value in settings.items()}
    with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in quoted.items())


def write_passfile(path: Path, passwords: Mapping[str, str]) -> None:
    """For libpq's `passfile`: each user's password on any host, for any database."""
    path.touch(0o600)
    path.write_text("".join(f"*:*:*:{user}:{word}\n" for user, word in passwords.items()), "ascii")


def read_passfile(path: Path) -> dict[str, str]:
    """Password by user."""
    lines = (line.split(":") for line in path.read_text("ascii").splitlines())
    return {user: password for *_, user, password in lines}


def clean_environment() -> dict[str, str]:
    """Ours without PGDATA, PGPORT, PGOPTIONS …, which PostgreSQL's programs would heed."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _run_initdb(programs: Path, data: Path, options: ClusterOptions, password: str) -> None:
    account = server_account()
    password_file = data.parent / "initdb-password"
    password_file.touch(0o600)
    password_file.write_text(password, "ascii")
    hand_over(password_file, account)
    command = [
        str(programs / "initdb"),
        f"--pgdata={data}",
        f"--username={SUPERUSER}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",  # pg_hba.conf then opens loopback, for replication as well
        "--encoding=UTF8",
        f"--locale={_locale()}",
        f"--wal-segsize={options.wal_segment_mb}",
        "--no-sync",
        *_checksum_options(options, programs),
    ]
    try:
        _run(command, account)
    finally:
        password_file.unlink()


def _checksum_options(options: ClusterOptions, programs: Path) -> list[str]:
    if options.checksums:
        return ["--data-checksums"]
    help_text = subprocess.run(
        [programs / "initdb", "--help"], check=True, capture_output=True, text=True
    ).stdout
    switch = "--no-data-checksums"  # came with 18, which has checksums by default
    return [switch] if switch in help_text else []


def _settings(major: int, options: ClusterOptions) -> dict[str, str]:
    summaries = {"summarize_wal": "on"} if major >= _SUMMARIES_SINCE else {}
    durability = {"fsync": "on" if options.fsync else "off"}
    replication = {"wal_level": "replica", "max_wal_senders": "10"}
    return {**replication, **summaries, **durability, **options.settings}


def _make_backup_user(programs: Path, data: Path, options: ClusterOptions, password: str) -> None:
    """In stand-alone mode, so that the cluster is complete before its first start."""
    statements = [f"CREATE ROLE {BACKUP_USER} LOGIN REPLICATION PASSWORD '{password}'"]
    if options.backup_user_reads_data:
        statements.append(f"GRANT pg_read_all_data TO {BACKUP_USER}")
    stand_alone = [str(programs / "postgres"), "--single", "-D", str(data)]
    command = [*stand_alone, "-c", "exit_on_error=on", "postgres"]
    _run(command, server_account(), input_text="\n".join(statements) + "\n")


def _run(command: list[str], account: Account | None, input_text: str = "") -> None:
    done = subprocess.run(
        command,
        check=False,
        input=input_text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_LIMIT_S,
        cwd="/",
        env=clean_environment(),
        **identity(account),
    )
    if done.returncode:
        name = Path(command[0]).name
        raise InitdbFailed(f"{name} exited with {done.returncode}: {done.stdout.strip()}")


@cache
def _locale() -> str:
    """C.UTF-8 where the C library has it: text sorts by code point, yet letters have case."""
    known = subprocess.run(["locale", "-a"], check=False, capture_output=True, text=True).stdout
    return "C.UTF-8" if "c.utf8" in known.lower().replace("-", "").split() else "C"
