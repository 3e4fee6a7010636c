"""The three commands of index maintenance; each outlives no deadline and waits for no lock long."""

from datetime import timedelta
from enum import StrEnum
from typing import Final

from psycopg import sql

from worker.postgres.upkeep_facts import Connection, IndexFacts, StatisticsFacts

# Who waits for a lock makes everybody behind it wait as well.
LOCK_TIMEOUT: Final = timedelta(seconds=10)


class UpkeepCommand(StrEnum):
    DROP = "drop"
    REBUILD = "rebuild"
    ANALYZE = "analyze"


def execute(
    connection: Connection,
    command: UpkeepCommand,
    subject: IndexFacts | StatisticsFacts,
    limit: timedelta,
) -> None:
    """The connection must be in autocommit: none of it runs inside a transaction.

    psycopg's errors pass; a rebuild that fails may leave an invalid index behind.
    """
    for setting, value in (("statement_timeout", limit), ("lock_timeout", LOCK_TIMEOUT)):
        milliseconds = max(1, int(value.total_seconds() * 1000))
        connection.execute(
            sql.SQL("SET {} = {}").format(sql.Identifier(setting), sql.Literal(milliseconds))
        )
    connection.execute(_statement(command).format(subject.identifier))


def _statement(command: UpkeepCommand) -> sql.SQL:
    match command:
        case UpkeepCommand.DROP:
            return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}")
        case UpkeepCommand.REBUILD:
            return sql.SQL("REINDEX INDEX CONCURRENTLY {}")
        case UpkeepCommand.ANALYZE:
            return sql.SQL("ANALYZE (SKIP_LOCKED) {}")
