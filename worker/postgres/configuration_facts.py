"""A server's configuration as it told it: for a restore where the files lay elsewhere.

Debian keeps postgresql.conf and pg_hba.conf outside the data directory, and a base backup does not
hold them. What a role may not see (pg_read_all_settings for some, superusers only for the rules of
pg_hba.conf) is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString

import psycopg
from psycopg.rows import TupleRow

from shared.errors import RecoverySettingInvalid
from worker.postgres.recovery_settings import quote_setting
from worker.postgres.table_facts import fetch_all

_HBA_COLUMNS: Final = ("type", "database", "user_name", "address", "netmask", "auth_method")


@dataclass(frozen=True, slots=True)
class ConfigurationFacts:
    """`settings`: those that are not defaults, in PostgreSQL's base units; `files`: where
    config_file, hba_file, ident_file and data_directory are; `hba`: lines of pg_hba.conf.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    hba: tuple[str, ...] = ()

    @property
    def outside(self) -> tuple[str, ...]:
        """Files that lie outside the data directory, as far as the role could see."""
        directory = self.files.get("data_directory")
        if directory is None:
            return ()
        below = directory.rstrip("/") + "/"
        return tuple(
            path
            for name, path in sorted(self.files.items())
            if name != "data_directory" and not path.startswith(below)
        )


def configuration_facts(connection: psycopg.Connection[TupleRow]) -> ConfigurationFacts:
    """Raises psycopg's errors."""
    settings = {row["name"]: row["setting"] for row in fetch_all(connection, _SETTINGS)}
    files = {row["name"]: row["setting"] for row in fetch_all(connection, _FILES)}
    may_read_rules = fetch_all(connection, _MAY_READ_HBA)[0]["allowed"]
    rules = fetch_all(connection, _HBA) if may_read_rules else []
    return ConfigurationFacts(settings, files, tuple(map(_hba_line, rules)))


def recorded_configuration(facts: ConfigurationFacts) -> str:
    """As a file that postgresql.conf may include; the rules of pg_hba.conf as comments."""
    lines = ["# What the server had set when it was backed up: recorded by pgkeep, used by nobody."]
    lines += [f"# {name} was {path}" for name, path in sorted(facts.files.items())]
    lines += [_setting_line(name, value) for name, value in sorted(facts.settings.items())]
    if facts.hba:
        lines += ["", "# pg_hba.conf:", *(f"#   {line}" for line in facts.hba)]
    return "\n".join(lines) + "\n"


def _setting_line(name: str, value: str) -> str:
    try:
        return f"{name} = {quote_setting(value)}"
    except RecoverySettingInvalid:
        return f"# {name} was {value!r}"


def _hba_line(row: Mapping[str, Any]) -> str:
    lists = {name: ",".join(row[name]) for name in ("database", "user_name")}
    shown = [lists.get(name) or row[name] for name in _HBA_COLUMNS]
    return " ".join(str(value) for value in (*shown, *(row["options"] or ())) if value)


# What a copy must not take over: where the source's files are, and what it was started with.
_SETTINGS: Final[LiteralString] = """
SELECT name, setting FROM pg_settings
 WHERE source IN ('configuration file', 'command line', 'environment variable', 'global')
   AND context <> 'internal'
   AND name NOT IN ('config_file', 'hba_file', 'ident_file', 'data_directory', 'external_pid_file')
 ORDER BY name
"""

_FILES: Final[LiteralString] = """
SELECT name, setting FROM pg_settings
 WHERE name IN ('config_file', 'hba_file', 'ident_file', 'data_directory')
"""

_MAY_READ_HBA: Final[LiteralString] = """
SELECT has_table_privilege('pg_hba_file_rules', 'SELECT')
       AND has_function_privilege('pg_hba_file_rules()', 'EXECUTE') AS allowed
"""

_HBA: Final[LiteralString] = """
SELECT type, database, user_name, address, netmask, auth_method, options
  FROM pg_hba_file_rules WHERE error IS NULL ORDER BY line_number
"""
