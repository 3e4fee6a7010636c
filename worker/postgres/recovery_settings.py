"""The files that steer a restored cluster's recovery: where it ends, and nothing that it may touch.

The restored file comes from the source, whose superuser could write anything there: an archive
command that would run here, an `include`, a line that stops the server from starting. So of its
lines only plain `name = value` settings that cannot run a program, load a library or reach another
host stay in force; the others stay readable, behind `#pgkeep# `. Ours come after them, where the
last line for a name wins (guc-file.l: later entries override earlier ones).
"""

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from types import MappingProxyType
from typing import Final, assert_never
from unicodedata import category

from shared.domain.recovery_target import (
    RecoveryTarget,
    TargetAction,
    ToImmediate,
    ToLatest,
    ToLsn,
    ToName,
    ToTime,
    ToXid,
)
from shared.errors import RecoverySettingInvalid, ScratchRefused

AUTO_CONF: Final = "postgresql.auto.conf"
RECOVERY_SIGNAL: Final = "recovery.signal"
STANDBY_SIGNAL: Final = "standby.signal"
TABLESPACE_MAP: Final = "tablespace_map"

_NEUTRAL: Final = "#pgkeep# "
_HEADER: Final = "# written by pgkeep; later lines win"
# Controls; halves of surrogate pairs, which UTF-8 cannot hold; Unicode's line and paragraph ends.
_REJECTED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
# One setting as guc-file.l reads it: name, optional equals sign, a quoted or bare value, comment.
_SETTING: Final = re.compile(
    r"[ \t\r]*(?P<name>[A-Za-z_][\w$]*(?:\.[A-Za-z_][\w$]*)*)"
    r"(?:[ \t\r]*=[ \t\r]*|[ \t\r]+)"
    r"(?:'(?:[^'\\\n\0]|''|\\[^\n\0])*'|[A-Za-z_][-\w$.:/]*|[-+]?\d+[A-Za-z]*|[-+]?\d+\.\d*)"
    r"[ \t\r]*(?:#[^\0]*)?",
    re.ASCII,
)
_MAP_LINE: Final = re.compile(rb"(?P<oid>\d+) (?:[^\\\n\r]|\\[\\\n\r])*\n")
_BLANK: Final = re.compile(r"[ \t\r]*(?:#[^\0]*)?")
_DANGEROUS: Final = re.compile(
    r"include.*|.*command|.*librar.*|.*conninfo|primary_.*|recovery_.*|archive_.*|restore_.*"
    r"|promote_trigger_file|standby_.*|.*_file|.*_director(y|ies)|listen_addresses|port|ssl.*|krb.*"
    r"|event_source|synchronous_standby_names|sync_replication_slots|ignore_.*|zero_damaged_pages"
    r"|allow_system_table_mods|dynamic_library_path|extension_control_path|oauth.*|jit_provider",
    re.IGNORECASE,
)
_TARGETS: Final = (
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
)
# The copy archives nothing and follows nobody, while it recovers and ever after (R27).
_APART: Final[Mapping[str, str]] = MappingProxyType(
    {
        "recovery_end_command": "",
        "archive_cleanup_command": "",
        "archive_mode": "off",
        "archive_command": "",
        "archive_library": "",
        "primary_conninfo": "",
        "primary_slot_name": "",
    }
)


@dataclass(frozen=True, slots=True)
class Recovery:
    """Where recovery ends and where its WAL comes from.

    `timeline` None is the backup's own. Without a `restore_command` there is the WAL that lies in
    the directory, and whatever else PostgreSQL asks for is absent.

    The end of the backup is ToImmediate, the first consistent point. A backup of an idle standby
    has no record behind that point, without which PostgreSQL does not notice that it was reached:
    its end is ToLatest without a `restore_command`.
    """

    target: RecoveryTarget = field(default_factory=ToImmediate)
    timeline: int | None = None
    action: TargetAction = TargetAction.PROMOTE
    restore_command: str | None = None


def quote_setting(value: str) -> str:
    """A configuration-file literal that PostgreSQL reads back as exactly `value`.

    guc-file.l (DeescapeQuotedString) undoes backslash escapes and doubled quotes. Control
    characters, line ends among them, raise RecoverySettingInvalid.
    """
    if any(category(character) in _REJECTED for character in value):
        raise RecoverySettingInvalid(f"a setting holds a control character: {value[:60]!r}")
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def recovery_settings(recovery: Recovery) -> list[str]:
    """Lines for postgresql.auto.conf.

    A `restore_command` that is set, with recovery.signal, makes this an archive recovery: the copy
    ends on a timeline of its own and can never continue the source's.
    """
    chosen, value, inclusive = _target_setting(recovery.target)
    timeline = "current" if recovery.timeline is None else str(recovery.timeline)
    settings = {
        "restore_command": recovery.restore_command or "false",
        # Before the target: once one is set, even clearing another one is refused (xlogrecovery.c).
        **{name: "" for name in _TARGETS if name != chosen},
        chosen: value,
        "recovery_target_inclusive": "on" if inclusive else "off",
        "recovery_target_timeline": timeline,
        "recovery_target_action": recovery.action.value,
        # A standby's that lags on purpose; every archive recovery waits like it (xlogrecovery.c).
        "recovery_min_apply_delay": "0",
        **_APART,
    }
    return setting_lines(settings)


def _target_setting(target: RecoveryTarget) -> tuple[str, str, bool]:
    """The one parameter to set, its value, and whether the target itself is kept."""
    match target:
        case ToTime(time, inclusive):
            text = time.astimezone(UTC).isoformat(" ", "microseconds")
            return "recovery_target_time", text.removesuffix(":00"), inclusive
        case ToLsn(lsn, inclusive):
            return "recovery_target_lsn", str(lsn), inclusive
        case ToXid(inclusive=inclusive):
            return "recovery_target_xid", str(target.short), inclusive
        case ToName(name):
            return "recovery_target_name", name, True
        case ToImmediate():
            return "recovery_target", "immediate", True
        case ToLatest():
            return "recovery_target", "", True
    assert_never(target)


def setting_lines(settings: Mapping[str, str]) -> list[str]:
    """`name = 'value'` for each. Raises RecoverySettingInvalid."""
    return [f"{name} = {quote_setting(value)}" for name, value in settings.items()]


def neutralise(text: str) -> str:
    """The restored file's content with every line commented out that is not plainly harmless."""
    return "\n".join(map(_neutral_line, text.split("\n")))


def prepare_recovery(data_directory: Path, recovery: Recovery) -> None:
    """Write postgresql.auto.conf and recovery.signal; running it again changes nothing more.

    A standby.signal would take precedence and is removed. Raises ScratchRefused when one of these
    files is not an ordinary one: a link could lead the write elsewhere.
    """
    for name in (RECOVERY_SIGNAL, STANDBY_SIGNAL):
        _require_ordinary(data_directory / name)
    _replace_ours(data_directory, recovery_settings(recovery))
    _write(data_directory / RECOVERY_SIGNAL, "", data_directory.stat())
    (data_directory / STANDBY_SIGNAL).unlink(missing_ok=True)


def settle_recovered(data_directory: Path) -> None:
    """Of our lines leave only those that keep a cluster apart whose recovery is over."""
    _replace_ours(data_directory, setting_lines(_APART))


def relink_tablespaces(data_directory: Path, locations: Mapping[str, str]) -> None:
    """Make tablespace_map lead to `locations`, by OID; does nothing when it does already.

    At its first start PostgreSQL makes the links below pg_tblspc anew from this file, so a copy
    that kept the source's paths would write into the source's tablespaces.
    """
    path = data_directory / TABLESPACE_MAP
    _require_ordinary(path)
    old = path.read_bytes() if path.exists() else b""
    new = relinked(old, {oid.encode(): os.fsencode(to) for oid, to in locations.items()})
    if new != old:
        _write(path, new.decode("utf-8", "surrogateescape"), data_directory.stat())


def relinked(tablespace_map: bytes, locations: Mapping[bytes, bytes]) -> bytes:
    """Lines "<oid> <path>" with other paths; backslash guards line ends and itself in a path.

    As xlog.c (do_pg_backup_start) writes and xlogrecovery.c (read_tablespace_map) reads it.
    """

    def line(match: re.Match[bytes]) -> bytes:
        location = locations.get(match["oid"])
        if location is None:
            return match[0]
        return match["oid"] + b" " + re.sub(rb"[\\\n\r]", rb"\\\g<0>", location) + b"\n"

    return _MAP_LINE.sub(line, tablespace_map)


def _neutral_line(line: str) -> str:
    if _BLANK.fullmatch(line):
        return line
    setting = _SETTING.fullmatch(line)
    if setting and not _DANGEROUS.fullmatch(setting["name"]):
        return line
    return _NEUTRAL + line


def _replace_ours(data_directory: Path, lines: Sequence[str]) -> None:
    auto_conf = data_directory / AUTO_CONF
    _require_ordinary(auto_conf)
    old = auto_conf.read_text("utf-8", "surrogateescape") if auto_conf.exists() else ""
    kept = neutralise(old.split(_HEADER)[0]).rstrip("\n")
    text = "\n".join([*([kept] if kept else []), _HEADER, *lines]) + "\n"
    _write(auto_conf, text, data_directory.stat())


def _require_ordinary(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ScratchRefused(f"{path} is not an ordinary file")


def _write(path: Path, text: str, owner: os.stat_result) -> None:
    """Replace the file at once, durably, with the data directory's owner and mode 0600."""
    temporary = path.with_name(path.name + ".pgkeep")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, stat.S_IRUSR | stat.S_IWUSR)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 - a descriptor, opened without following links
        file.write(text)
        file.flush()
        os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.fsync(file.fileno())
    temporary.replace(path)
