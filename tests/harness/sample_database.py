"""The database of the tests' source clusters: small, with what makes backups interesting.

Foreign keys and an index per table to check after a restore; rows that span pages; and text that
does not compress, so that it lies in TOAST in many chunks.
"""

from typing import Final, LiteralString

import psycopg

DATABASE: Final = "app"
# Rows per table, for tests that count them after a restore.
ROWS: Final = {"organizations": 20, "users": 1_000, "documents": 3_000, "summaries": 1_500}

# setseed makes random() repeat itself: every load gives the same rows.
_STATEMENTS: Final[tuple[LiteralString, ...]] = (
    "SELECT setseed(0.5)",
    """
    CREATE TABLE organizations (
        id integer PRIMARY KEY, name text NOT NULL, created timestamptz NOT NULL)""",
    """
    CREATE TABLE users (
        id integer PRIMARY KEY,
        organization_id integer NOT NULL REFERENCES organizations,
        email text NOT NULL)""",
    """
    CREATE TABLE documents (
        id integer PRIMARY KEY,
        owner_id integer NOT NULL REFERENCES users,
        title text NOT NULL,
        body text NOT NULL)""",
    """
    CREATE TABLE summaries (
        id integer PRIMARY KEY,
        document_id integer NOT NULL REFERENCES documents,
        content jsonb NOT NULL)""",
    """
    INSERT INTO organizations
    SELECT n, 'organization ' || n, timestamptz '2026-01-01Z' + n * interval '1 day'
    FROM generate_series(1, 20) n""",
    """
    INSERT INTO users
    SELECT n, 1 + n % 20, 'user' || n || '@example.org' FROM generate_series(1, 1000) n""",
    """
    INSERT INTO documents
    SELECT n, 1 + n % 1000, 'document ' || n, repeat('word ' || n || ' ', 1 + n % 50)
    FROM generate_series(1, 3000) n""",
    """
    INSERT INTO summaries
    SELECT n, n * 2, jsonb_build_object('length', n % 50, 'words', jsonb_build_array('word', n))
    FROM generate_series(1, 1500) n""",
    """
    UPDATE documents SET body = (
        SELECT string_agg(md5(random()::text || n || documents.id), '')
        FROM generate_series(1, 1000) n)
    WHERE id % 100 = 0""",
    "CREATE INDEX organizations_created ON organizations (created)",
    "CREATE UNIQUE INDEX users_email ON users (email)",
    "CREATE INDEX documents_owner ON documents (owner_id, title)",
    "CREATE INDEX summaries_content ON summaries USING gin (content)",
)


def load_sample(server_dsn: str, database_dsn: str) -> None:
    """Create DATABASE over the first connection string and fill it over the second."""
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE app")
    with psycopg.connect(database_dsn) as connection:
        for statement in _STATEMENTS:
            connection.execute(statement)
