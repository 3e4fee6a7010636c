"""Whose the files shall be that a restore writes."""

import os
import pwd

from shared.errors import InvalidInput, Refused
from worker.pipeline.file_writer import Owner


class OwnerNeeded(Refused):
    """Restoring as root without saying whose the files shall be."""

    code = "owner-needed"
    hint = "Give --owner ACCOUNT or drill.run_as: PostgreSQL refuses to run as root."


class OwnerUnknown(InvalidInput):
    """An account that this host does not have."""

    code = "owner-unknown"
    hint = "Name an existing account, usually postgres."


def find_owner(account: str | None) -> Owner | None:
    """None for a normal user, who owns what it writes. Raises OwnerNeeded, OwnerUnknown."""
    if os.geteuid() != 0:
        return None
    if account is None:
        raise OwnerNeeded("pgkeep runs as root and nobody said who shall own the files")
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        raise OwnerUnknown(f"this host has no account {account!r}") from None
    return Owner(entry.pw_uid, entry.pw_gid)
