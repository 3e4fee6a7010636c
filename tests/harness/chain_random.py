"""Anything that changes files may happen between two backups; the same again for the same seed.

A test with a parameter `chain_seed` runs for as many seeds as `--chain-seeds` says.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import pytest

from local.postgres_server import PostgresServer

# Few names: what is dropped comes back as something else.
_TABLES: Final = ("a", "b", "c")
_DATABASES: Final = {"one": 200_001, "two": 200_002}
_INDEXES: Final = (
    "btree (id, body)",
    "hash (body)",
    "brin (id)",
    "gin (to_tsvector('simple', body))",
    "spgist (body)",
    "gist (point(id, -id))",
)
_MOST_ROWS: Final = 3000


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "random chains to compare with pg_combinebackup's (default: %(default)s)"
    parser.addoption("--chain-seeds", type=int, default=2, help=text)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "chain_seed" in metafunc.fixturenames:
        metafunc.parametrize("chain_seed", range(metafunc.config.getoption("--chain-seeds")))


@dataclass
class RandomWork:
    """One life of a database, whose tablespace `inside` exists. `done` are its statements."""

    seed: int
    done: list[str] = field(default_factory=list)
    _next: list[str] = field(default_factory=list)
    _tables: set[str] = field(default_factory=set)
    _databases: set[str] = field(default_factory=set)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - to be repeated, not to be secret

    def go_on(self, server: PostgresServer, statements: int) -> None:
        """Up to the next backup."""
        with server.connect() as connection:
            for _ in range(statements):
                self.done.append(self._statement())
                connection.execute(self.done[-1].encode())
        self.done.append("-- backup")

    def _statement(self) -> str:
        if self._next:
            return self._next.pop()
        if not self._tables:
            return self._create()
        [act] = self._random.choices([*_ACTS], [*_ACTS.values()])
        return act(self)

    def _table(self) -> str:
        return self._random.choice(sorted(self._tables))

    def _rows(self) -> str:
        """More rows, wide or narrow; ids rise from anywhere."""
        begin = self._random.randrange(_MOST_ROWS)
        end, width = begin + self._random.randrange(_MOST_ROWS), self._random.choice((1, 5, 20))
        series = f"generate_series({begin}, {end}) n"
        return f"SELECT n, repeat(md5(n::text), {width}) FROM {series}"  # noqa: S608 - our own words

    def _range(self) -> str:
        begin = self._random.randrange(2 * _MOST_ROWS)
        end = begin + self._random.choice((10, 300, 10 * _MOST_ROWS))
        return f"id BETWEEN {begin} AND {end}"

    def _create(self) -> str:
        new = sorted({*_TABLES} - self._tables)
        if not new:
            return self._drop()
        table = self._random.choice(new)
        self._tables.add(table)
        kind = self._random.choice(("", "", "", "UNLOGGED "))
        place = self._random.choice(("", "", " TABLESPACE inside"))
        self._next.append(f"VACUUM (FREEZE) {table}")  # else the next one touches every page
        return f"CREATE {kind}TABLE {table} (id, body){place} AS {self._rows()}"

    def _insert(self) -> str:
        return f"INSERT INTO {self._table()} {self._rows()}"

    def _copy(self) -> str:
        """Adds blocks to the file that stay unused."""
        lines = f"seq -f '%.0f,{'x' * 100}' {self._random.randrange(100, _MOST_ROWS)}"
        return f"COPY {self._table()} FROM PROGRAM $${lines}$$ (FORMAT csv)"

    def _undo(self) -> str:
        return f"BEGIN; {self._insert()}; ROLLBACK"

    def _update(self) -> str:
        table, rows = self._table(), self._range()
        return f"UPDATE {table} SET body = upper(body) WHERE {rows}"  # noqa: S608 - our own words

    def _delete(self) -> str:
        return f"DELETE FROM {self._table()} WHERE {self._range()}"  # noqa: S608 - our own words

    def _cut(self) -> str:
        """The second half of the file, which VACUUM then cuts off."""
        table = self._table()
        self._next.append(f"VACUUM {table}")
        half = f"(SELECT pg_relation_size('{table}') / 2 / 8192)"
        return f"DELETE FROM {table} WHERE (ctid::text::point)[0] > {half}"  # noqa: S608 - as above

    def _vacuum(self) -> str:
        how = self._random.choice(("", "", "", "(FREEZE)", "(FULL)"))
        return f"VACUUM {how} {self._table()}"

    def _truncate(self) -> str:
        return f"TRUNCATE {self._table()}"

    def _drop(self) -> str:
        table = self._table()
        self._tables.remove(table)
        return f"DROP TABLE {table}"

    def _index(self) -> str:
        if self._random.random() < 1 / 3:
            return f"REINDEX TABLE {self._table()}"
        return f"CREATE INDEX ON {self._table()} USING {self._random.choice(_INDEXES)}"

    def _move(self) -> str:
        place = self._random.choice(("inside", "pg_default"))
        return f"ALTER TABLE {self._table()} SET TABLESPACE {place}"

    def _database(self) -> str:
        name = self._random.choice(sorted(_DATABASES))
        if name in self._databases:
            self._databases.remove(name)
            return f"DROP DATABASE {name}"
        self._databases.add(name)
        strategy = self._random.choice(("wal_log", "file_copy"))
        return f"CREATE DATABASE {name} OID = {_DATABASES[name]} STRATEGY = {strategy}"


# How often each is done.
_ACTS: Final[dict[Callable[[RandomWork], str], int]] = {
    RandomWork._create: 4,
    RandomWork._insert: 4,
    RandomWork._copy: 6,
    RandomWork._undo: 1,
    RandomWork._update: 4,
    RandomWork._delete: 4,
    RandomWork._cut: 4,
    RandomWork._vacuum: 4,
    RandomWork._truncate: 1,
    RandomWork._drop: 1,
    RandomWork._index: 3,
    RandomWork._move: 1,
    RandomWork._database: 2,
}
