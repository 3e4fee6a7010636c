"""Whether the incremental backups of a schedule can be taken as such, for `pgkeep check`."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString

from shared.domain.schedule_gap import longest_gap
from shared.settings import ClusterSettings
from worker.commands.check_result import CheckFailed
from worker.commands.cluster_login import connect_to
from worker.postgres.prerequisites import Lack, setting_lack
from worker.postgres.table_facts import fetch_one, mapped_errors

_FIRST_MAJOR: Final = 17  # release notes of PostgreSQL 17: pg_basebackup --incremental
_NEVER_REMOVED: Final = timedelta(0)


class IncrementalsHindered(CheckFailed):
    """The schedule wants incremental backups, and the server cannot give them."""

    code = "incrementals-hindered"
    hint = "Until it is corrected, full backups are taken, or none, as when_impossible says."


def incrementals(cluster: ClusterSettings, now: datetime) -> str:
    """What makes them possible on the server behind `dsn`.

    Raises IncrementalsHindered, which says what to run, and what connecting raises.
    """
    with connect_to(cluster)(cluster.database) as connection, mapped_errors():
        server = fetch_one(connection, _SERVER)
        if server["major"] < _FIRST_MAJOR:
            return _always_full(cluster, server["major"])
        _require_summaries(cluster, {**server, **fetch_one(connection, _SUMMARIES)})
    keep = timedelta(minutes=int(server["keep_minutes"]))
    crons = (cluster.schedule.full, cluster.schedule.incremental)
    gap = longest_gap([cron for cron in crons if cron], now)
    kept = "for ever" if keep == _NEVER_REMOVED else f"for {_short(keep)}"
    if _NEVER_REMOVED < keep <= gap:
        raise IncrementalsHindered(
            f"WAL summaries are kept {kept}, but backups come up to {_short(gap)} apart",
            lacks=[_setting(server, "wal_summary_keep_time", f"'{_short(2 * gap)}'")],
        )
    return f"WAL is summarised, summaries are kept {kept}; backups come up to {_short(gap)} apart"


def _always_full(cluster: ClusterSettings, major: int) -> str:
    if cluster.incremental.when_impossible == "fail":
        raise IncrementalsHindered(
            f"PostgreSQL {major} takes no incremental backups: each scheduled one will fail",
            hint='Set schedule.incremental = false, or incremental.when_impossible = "full".',
        )
    return f"PostgreSQL {major} takes none: full backups are taken instead"


def _require_summaries(cluster: ClusterSettings, server: Mapping[str, Any]) -> None:
    if server["summarize_wal"] != "on":
        raise IncrementalsHindered(
            "summarize_wal is off",
            hint="Set it on that server, then take a full backup.",
            lacks=[_setting(server, "summarize_wal", "on")],
        )
    if not server["may_list"]:
        role = server["role"]
        fact = f"role {role} may not list WAL summaries"
        statement = f"GRANT EXECUTE ON FUNCTION pg_available_wal_summaries() TO {role};"
        lack = Lack(fact, statement, "at once", database=cluster.database)
        raise IncrementalsHindered(fact, lacks=[lack])


def _setting(server: Mapping[str, Any], name: str, value: str) -> Lack:
    fact = f"{name} has to be {value}"
    return setting_lack(fact, name, value, "after a reload", by_sql=server["by_sql"])


def _short(span: timedelta) -> str:
    """In the units of a setting."""
    hours, minutes = divmod(round(span.total_seconds() / 60), 60)
    return f"{hours * 60 + minutes}min" if minutes else f"{hours}h"


_SERVER: Final[LiteralString] = """
SELECT current_setting('server_version_num')::int / 10000 AS major,
       current_setting('summarize_wal', true) AS summarize_wal,
       (SELECT setting FROM pg_settings WHERE name = 'wal_summary_keep_time') AS keep_minutes,
       quote_ident(current_user) AS role,
       coalesce(current_setting('allow_alter_system', true), 'on') = 'on' AS by_sql
"""

_SUMMARIES: Final[LiteralString] = """
SELECT has_function_privilege('pg_available_wal_summaries()', 'EXECUTE') AS may_list
"""
