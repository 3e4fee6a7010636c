"""Whom PostgreSQL runs as: it refuses root, so root hands it to an account without rights."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from shared.errors import NotFound, Refused

# `postgres` is what Debian's and Red Hat's packages make; `nobody` exists on every Unix.
_ACCOUNT_NAMES = ("postgres", "nobody")
# Others may pass through but not list: enough for PostgreSQL to reach a data directory below.
_PASS_THROUGH = 0o711


class AccountMissing(NotFound):
    """Root finds no account to which it could hand PostgreSQL."""

    code = "account-missing"
    hint = "Make one with `useradd --system postgres`, or run this as a normal user."


class DirectoryOutOfReach(Refused):
    """A directory that the account of PostgreSQL cannot enter, because of one above it."""

    code = "directory-out-of-reach"
    hint = "Take a directory below the system's temporary directory, or run this as a normal user."


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine."""

    name: str
    uid: int
    gid: int


class ProcessIdentity(TypedDict, total=False):
    """What subprocess.run and Popen take to start a program as somebody else."""

    user: int
    group: int
    extra_groups: list[int]


def server_account() -> Account | None:
    """The account to run PostgreSQL as; None means as we are. Raises AccountMissing."""
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNT_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise AccountMissing(f"none of the accounts {', '.join(_ACCOUNT_NAMES)} exists")


def identity(account: Account | None) -> ProcessIdentity:
    """Keyword arguments for subprocess; nothing for None."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def hand_over(path: Path, account: Account | None) -> None:
    """Make the account the owner of a file or a whole tree; links are not followed."""
    if account is None:
        return
    os.chown(path, account.uid, account.gid, follow_symlinks=False)
    for folder, subfolders, files in os.walk(path):
        for name in subfolders + files:
            os.chown(Path(folder, name), account.uid, account.gid, follow_symlinks=False)


def make_reachable_directory(path: Path, account: Account | None) -> None:
    """Make `path`, ours, through which the account can pass. Raises DirectoryOutOfReach."""
    path.mkdir(parents=True, exist_ok=True)
    if account is None:
        return
    path.chmod(path.stat().st_mode | _PASS_THROUGH)
    if not may(account, "-x", path):
        raise DirectoryOutOfReach(f"account {account.name} cannot enter {str(path)!r}")


def may(account: Account | None, test: str, path: Path) -> bool:
    """Ask the kernel, as the account: `-r` may it read, `-x` run or enter `path`?

    Mode bits alone would not tell: there are access lists, mount options and the folders above.
    """
    answer = subprocess.run(["test", test, path], check=False, cwd="/", **identity(account))
    return answer.returncode == 0
