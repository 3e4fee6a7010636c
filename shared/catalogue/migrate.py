"""Migrations of the catalogue: forward only, each in one transaction, one migrator at a time.

A schema is accepted only when its history is exactly that of this release: each migration is
noted with its number and the SHA-256 of its text. Anything else refuses to start, because a
catalogue can always be made anew from the repository, and a guess cannot.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib import resources
from typing import LiteralString

from shared.catalogue.postgres_session import Login, Session, transact
from shared.errors import CatalogueSchemaBroken, CatalogueSchemaOutdated, CatalogueSchemaTooNew

# Any constant of our own; all migrators of one database must take the same.
_ADVISORY_LOCK = 0x70676B656570  # "pgkeep"

_HISTORY_EXISTS = "SELECT to_regclass('migration') IS NOT NULL AS found"
_CREATE_HISTORY = """
    CREATE TABLE migration (
        number     integer     PRIMARY KEY,
        name       text        NOT NULL,
        sha256     text        NOT NULL,
        applied_at timestamptz NOT NULL
    )
"""
# `backup` is what every release has had: without history, somebody applied a file by hand.
_TABLES_EXIST = "SELECT to_regclass('backup') IS NOT NULL AS found"


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def release_migrations() -> list[Migration]:
    """The migrations of this release, by number."""
    return sorted(_read_migrations(), key=lambda migration: migration.number)


def _read_migrations() -> Iterator[Migration]:
    for entry in resources.files("shared.catalogue").joinpath("migrations").iterdir():
        if entry.name.endswith(".sql"):
            number = int(entry.name.partition("_")[0])
            yield Migration(number, entry.name, entry.read_text("utf-8"))


def migrate(login: Login, now: datetime, migrations: list[Migration] | None = None) -> list[str]:
    """Apply what is missing and return the names. `migrations` defaults to this release's.

    Raises CatalogueSchemaTooNew or CatalogueSchemaBroken, and then has changed nothing.
    """
    wanted = release_migrations() if migrations is None else migrations
    return [
        migration.name
        for migration in wanted
        if transact(login, partial(_apply, wanted=wanted, migration=migration, now=now))
    ]


def check_schema(session: Session, migrations: list[Migration] | None = None) -> None:
    """Raises CatalogueSchemaOutdated, CatalogueSchemaTooNew or CatalogueSchemaBroken."""
    wanted = release_migrations() if migrations is None else migrations
    done = _history(session, wanted)
    if done < len(wanted):
        names = ", ".join(migration.name for migration in wanted[done:])
        raise CatalogueSchemaOutdated(f"the catalogue lacks {names}")


def _apply(session: Session, wanted: list[Migration], migration: Migration, now: datetime) -> bool:
    session.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])
    done = _history(session, wanted)
    if migration in wanted[:done]:
        return False
    if done == 0:
        session.execute(_CREATE_HISTORY)
    session.execute(migration.text.encode())
    session.execute(
        "INSERT INTO migration (number, name, sha256, applied_at) VALUES (%s, %s, %s, %s)",
        [migration.number, migration.name, migration.sha256, now],
    )
    return True


def _history(session: Session, wanted: list[Migration]) -> int:
    """How many of `wanted`, from the first, the database has; raises when it has others."""
    if not _is_true(session, _HISTORY_EXISTS):
        if _is_true(session, _TABLES_EXIST):
            raise CatalogueSchemaBroken("the catalogue has tables, but no history of migrations")
        return 0
    rows = session.execute("SELECT number, name, sha256 FROM migration ORDER BY number").fetchall()
    if not rows:
        raise CatalogueSchemaBroken("the catalogue has an empty history of migrations")
    if rows[-1]["number"] > wanted[-1].number:
        raise CatalogueSchemaTooNew(
            f"the catalogue has {rows[-1]['name']}, this release ends with {wanted[-1].name}"
        )
    for row, migration in zip(rows, wanted, strict=False):
        if (row["number"], row["sha256"]) != (migration.number, migration.sha256):
            raise CatalogueSchemaBroken(
                f"the catalogue has {row['name']} with sha256 {row['sha256'][:12]}, "
                f"this release has {migration.name} with {migration.sha256[:12]}"
            )
    return len(rows)


def _is_true(session: Session, question: LiteralString) -> bool:
    row = session.execute(question).fetchone()
    return row is not None and bool(row["found"])
