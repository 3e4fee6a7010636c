"""A cluster that is hard to copy, and what happens to it while it is copied.

Built once and asked for everything: three tablespaces with odd paths and one in place, a relation
of more than one segment, empty, unlogged and temporary ones, large objects, names that are no text,
and everything that PostgreSQL leaves out of a backup (its own 010_pg_basebackup.pl has the list).
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from psycopg import sql

from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer
from local.unprivileged import hand_over, server_account
from shared.repository.blob_store import BlobName
from tests.harness.deadline import wait_until
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.worker_services import dump

SEGMENT: Final = 1 << 30  # bytes of a relation's file, RELSEG_SIZE blocks, before the next begins
# PostgreSQL 15 leaves tablespaces in place out of a backup with a map ("testing use only", xlog.c).
IN_PLACE_SINCE: Final = 16
SETTINGS: Final = {
    "allow_in_place_tablespaces": "on",
    "max_wal_size": "2GB",
    # A backup that carries its WAL needs it to be there still at its end.
    "wal_keep_size": "1GB",
}
NOT_TO_COPY: Final = b"DONOTCOPY"
# Relative to the data directory. basebackup.c: excludeFiles, excludeDirContents, temporary files
# by their prefix, temporary relations by theirs.
EXCLUDED: Final = (
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "pg_internal.init.123",
    "global/pg_internal.init",
    "global/pg_internal.init.123",
    "pgsql_tmp.1",
    "base/pgsql_tmp/pgsql_tmp1.1",
    *(
        f"pg_{name}/left_over"
        for name in (
            "dynshmem",
            "notify",
            "replslot",
            "serial",
            "snapshots",
            "stat_tmp",
            "subtrans",
        )
    ),
)
# Of its own making in every backup: what lies there under these names must not come along.
REPLACED: Final = ("backup_label", "tablespace_map", "backup_manifest")
TEMPORARY_RELATIONS: Final = ("t999_999", "t9999_999.1", "t999_9999_vm", "t99999_99999_fsm.1")
# Names of any bytes but "/" and NUL, with their content.
ODD_FILES: Final = {
    b"caf\xe9 is not utf-8": b"kept",
    b'quo"te \\ and\nnew line': b"kept, too",
    "grüße = 世界".encode(): b"",
    b"dir \xff/\xfe": b"below a directory that is no text either",
    b"n" * 99: b"as long as a name in a tar header may be",
}
FILLER: Final = sql.SQL(
    "SELECT n, repeat(md5(n::text), 30) AS body FROM generate_series(1, {}) n"
)  # about a kilobyte a row


@dataclass(frozen=True)
class HardCluster:
    """`outside` are the tablespaces `one` and `two`."""

    source: PostgresServer
    place: Path
    outside: tuple[Path, Path]

    def run(self, statement: str, *names: str, database: str = "postgres") -> None:
        """One statement, each {} a name."""
        with self.source.connect(database) as connection:
            text = sql.SQL(statement)
            connection.execute(text.format(*map(sql.Identifier, names)))

    def file(self, table: str) -> Path:
        """Of its main fork's first segment, below the data directory."""
        with self.source.connect() as connection:
            found = connection.execute("SELECT pg_relation_filepath(%s)", [table]).fetchone()
        assert found
        return Path(found[0])

    def dumps(self) -> dict[str, str]:
        """What pg_dump says, by database."""
        return dumps(self.source)


def dumps(server: PostgresServer) -> dict[str, str]:
    names = server.query("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1")
    return {name: dump(server, name) for (name,) in names}


@contextmanager
def hard_cluster(make_cluster: MakeCluster, place: Path) -> Iterator[HardCluster]:
    """Running, with segments of 1 MiB of WAL, page checksums, and a session with its own tables."""
    source = make_cluster(ClusterOptions(wal_segment_mb=1, settings=SETTINGS))
    outside = (place / "fast = disk", place / "dünne Scheibe" / ("long" * 60))
    hard = HardCluster(source, place, outside)
    for name, path in zip(("one", "two"), outside, strict=True):
        make_tablespace(hard, name, path)
    if source.major >= IN_PLACE_SINCE:
        make_tablespace(hard, "inside", None)
    _make_tables(hard)
    _lengthen(hard)
    _litter(hard)
    with source.connect() as session:
        session.execute("CREATE TEMP TABLE passing AS SELECT generate_series(1, 99) n")
        session.execute("CREATE TEMP TABLE passing_there TABLESPACE one AS SELECT 1 n")
        yield hard


def make_tablespace(hard: HardCluster, name: str, path: Path | None) -> None:
    """With a table `in_<name>`; without a path, in place."""
    if path is not None:
        path.mkdir(0o700, parents=True)
        hand_over(path, server_account())
        for above in path.relative_to(hard.place).parents:
            (hard.place / above).chmod(0o711)
    location = "" if path is None else str(path)
    with hard.source.connect() as connection:
        space, table = sql.Identifier(name), sql.Identifier(f"in_{name}")
        connection.execute(sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(space, location))
        filler = FILLER.format(5_000)
        made = sql.SQL("CREATE TABLE {} TABLESPACE {} AS {}").format(table, space, filler)
        connection.execute(made)


def _make_tables(hard: HardCluster) -> None:
    with hard.source.connect() as connection:
        for statement in (
            "CREATE TABLE empty (n int)",
            "CREATE TABLE long AS SELECT n, md5(n::text) FROM generate_series(1, 1000) n",
            "CREATE TABLE grown AS SELECT generate_series(1, 1000) n",
            "CREATE TABLE cut AS SELECT generate_series(1, 100000) n",
            "CREATE TABLE thinned AS SELECT generate_series(1, 100000) n",
            "CREATE INDEX ON thinned (n)",
            "CREATE UNLOGGED TABLE forgotten AS SELECT generate_series(1, 999) n",
            "CREATE INDEX ON forgotten (n)",
            "CREATE UNLOGGED TABLE forgotten_there TABLESPACE two AS SELECT 1 n",
            "SELECT lo_from_bytea(4711, decode(repeat('00ff', 100000), 'hex'))",
            "SELECT pg_create_physical_replication_slot('kept')",
        ):
            connection.execute(statement)


def _lengthen(hard: HardCluster) -> None:
    """Lengthen a table by new, empty pages, which cost nothing, into its second segment."""
    path = hard.source.data / hard.file("long")
    hard.source.stop()
    os.truncate(path, SEGMENT)
    hard.source.start()
    hard.run("INSERT INTO long SELECT n, md5(n::text) FROM generate_series(1001, 20000) n")
    assert path.with_name(f"{path.name}.1").exists()


def _litter(hard: HardCluster) -> None:
    """Files that PostgreSQL leaves out, and files that it copies though it does not know them."""
    data = hard.source.data
    relations = [hard.file("grown").parent, hard.file("in_one").parent]
    below = [folder / name for folder in relations for name in TEMPORARY_RELATIONS]
    for path in (*map(Path, EXCLUDED), *map(Path, REPLACED), *below):
        put(data / path, NOT_TO_COPY)
    for name, content in ODD_FILES.items():
        put(data / os.fsdecode(name), content)


def put(path: Path, content: bytes) -> None:
    """A file of PostgreSQL's account, with its directory."""
    new_parent = not path.parent.exists()
    path.parent.mkdir(0o700, exist_ok=True)
    path.write_bytes(content)
    hand_over(path.parent if new_parent else path, server_account())


@dataclass
class Mischief:
    """What happens in the middle of the backup of this number, beside it.

    Call `prepare` before the backup, `before` before each commit of it, `finish` after it. The
    stream is held up at the commits until the changes are made, except while these wait for the
    server's walsender, which cannot answer (ProcSignalBarrier) before we have read on.
    """

    hard: HardCluster
    number: int
    seen: list[tuple[str, int, int]] = field(default_factory=list)
    _beside: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _acts: list[Future[None]] = field(default_factory=list)

    @property
    def gone(self) -> str:
        """The tablespace that is dropped."""
        return f"gone {self.number}"

    def prepare(self) -> None:
        """Enough in every tablespace that its archive is still on its way when we strike."""
        hard, number = self.hard, self.number
        make_tablespace(hard, self.gone, hard.place / self.gone)
        filler = FILLER.format(25_000).as_string(None)
        for space in ("one", "two", self.gone, "pg_default"):
            hard.run(
                f"CREATE TABLE {{}} TABLESPACE {{}} AS {filler}", f"bulk {space} {number}", space
            )
        hard.run("CREATE DATABASE {}", f"old {number}")
        hard.run("CREATE TABLE was (n int)", database=f"old {number}")
        put(hard.source.data / "vanishing", b"x" * 9999)
        put(hard.source.data / "growing.log", b"begin\n")

    def before(self, name: BlobName) -> None:
        if "/base." not in name.path:
            return
        if not self._acts:
            self._act(self._drop_tablespace)
        elif len(self._acts) == 1 and "/base.pgdata." in name.path:
            self._act(self._change_databases, self._change_tables)
        wait_until(lambda: self._acts[-1].done() or self._barred(), 60, "the changes are made")

    def finish(self) -> None:
        """`seen` is complete: the server's phase, tablespaces done, and all, around each act."""
        for act in self._acts:
            act.result()
        self._beside.shutdown()

    def _act(self, *deeds: Callable[[], None]) -> None:
        def act() -> None:
            self.seen.append(self._streamed())
            for deed in deeds:
                deed()
            self.seen.append(self._streamed())

        self._acts.append(self._beside.submit(act))

    def _barred(self) -> bool:
        return bool(
            self.hard.source.query(
                "SELECT pid FROM pg_stat_activity WHERE wait_event = 'ProcSignalBarrier'"
            )
        )

    def _streamed(self) -> tuple[str, int, int]:
        rows: list[Any] = self.hard.source.query(
            "SELECT phase, tablespaces_streamed, tablespaces_total FROM pg_stat_progress_basebackup"
        )
        return rows[0]  # type: ignore[no-any-return]

    def _drop_tablespace(self) -> None:
        for table in (f"in_{self.gone}", f"bulk {self.gone} {self.number}"):
            self.hard.run("DROP TABLE {}", table)
        self.hard.run("DROP TABLESPACE {}", self.gone)

    def _change_databases(self) -> None:
        hard, number = self.hard, self.number
        hard.run("DROP DATABASE {}", f"old {number}")
        for strategy in ("wal_log", "file_copy"):
            name = f"new by {strategy} {number}"
            hard.run(f"CREATE DATABASE {{}} STRATEGY {strategy}", name)
            hard.run("CREATE TABLE made AS SELECT generate_series(1, 99) n", database=name)

    def _change_tables(self) -> None:
        for statement in _CHANGES:
            self.hard.run(statement)
        self.hard.run("DROP TABLE {}", f"bulk pg_default {self.number}")
        data = self.hard.source.data
        (data / "vanishing").unlink()
        with (data / "growing.log").open("ab") as log:
            log.write(b"more\n" * 9999)


# Relations that grow, shrink, are emptied and filled again, and change in either of two segments.
_CHANGES: Final = (
    "INSERT INTO grown SELECT generate_series(1, 99999)",
    "TRUNCATE cut",
    "INSERT INTO cut VALUES (1)",
    "DELETE FROM thinned WHERE n > (SELECT max(n) / 10 FROM thinned)",
    "VACUUM (TRUNCATE) thinned",
    "INSERT INTO long SELECT n, 'later' FROM generate_series(1, 9999) n",
    "UPDATE long SET md5 = md5 || '+' WHERE n % 900 = 0",
    "SELECT lo_put(4711, 5, sha256(lo_get(4711)))",
    "CHECKPOINT",
)
