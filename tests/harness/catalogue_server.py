"""A real PostgreSQL for catalogues: one server per test module, one database per test."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from psycopg import sql

from local.postgres_initdb import ClusterOptions
from local.postgres_programs import available_majors, find
from local.postgres_server import PostgresServer
from shared.catalogue.migrate import migrate

_TEMPLATE = "migrated"
# Nothing here must survive a crash of the machine.
_FAST = ClusterOptions(
    fsync=False, settings={"synchronous_commit": "off", "full_page_writes": "off"}
)


@dataclass(frozen=True, slots=True)
class CatalogueServer:
    server: PostgresServer

    def empty_database(self) -> str:
        """Connection string of a new database without any schema."""
        return self._new_database("template1")

    def database(self) -> str:
        """Connection string of a new, migrated database."""
        return self._new_database(_TEMPLATE)

    def _new_database(self, template: str) -> str:
        name = f"catalogue_{secrets.token_hex(6)}"
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with self.server.connect() as connection:
            connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        return self.server.dsn(name)


@contextmanager
def running_catalogue_server() -> Iterator[CatalogueServer]:
    """In a directory of its own: pytest's are closed to the account of PostgreSQL."""
    programs = find(available_majors()[-1])
    assert programs is not None
    with (
        TemporaryDirectory(prefix="pgkeep-catalogue-") as directory,
        PostgresServer.create(programs, Path(directory), _FAST) as server,
    ):
        with server.connect() as connection:
            connection.execute("CREATE DATABASE migrated")
        migrate(server.dsn(_TEMPLATE), datetime.now(UTC))
        yield CatalogueServer(server)
