"""A source, a pg_basebackup of it with facts on either side, and copies started as a drill would.

Directories are our own: pytest's are closed to the account of PostgreSQL, and too long for sockets.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from local import postgres_programs
from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer
from shared.domain.drill import SnapshotFacts, TableVerdict
from worker.postgres.connection import connect_sql
from worker.postgres.instance import Instance, running_instance, wait_until_open
from worker.postgres.programs import (
    Account,
    Programs,
    account_named,
    find_programs,
    read_control_data,
)
from worker.postgres.recovery_settings import Recovery, prepare_recovery
from worker.postgres.restored_checks import restored_tables
from worker.postgres.scratch import Scratch, hand_over, make_scratch
from worker.postgres.table_facts import TableName, table_facts

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
LIMIT_S = 60
TABLES = [
    TableName.parse(name, default_database="postgres")
    for name in ("public.busy", "public.quiet", "public.unlogged")
]


@dataclass
class RestoreLab:
    """A source, a backup of it with the facts around it, and a place for copies."""

    source: PostgresServer
    programs: Programs
    account: Account | None
    root: Path
    backup: Path
    start: tuple[SnapshotFacts, ...]
    end: tuple[SnapshotFacts, ...]
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1000)))

    def copy(self, label: str = "lab") -> Scratch:
        """A fresh restored copy, recovery settings written."""
        scratch = make_scratch(
            self.root, label, token=f"d{next(self.numbers)}", now=NOW, account=self.account
        )
        shutil.copytree(self.backup, scratch.data, dirs_exist_ok=True)
        prepare_recovery(scratch.data, Recovery())
        hand_over(scratch, self.account)
        return scratch

    @contextmanager
    def instance(self, scratch: Scratch) -> Iterator[Instance]:
        control = read_control_data(self.programs, scratch.data, account=self.account)
        with running_instance(
            scratch, self.programs, control, account=self.account, superuser="postgres"
        ) as instance:
            yield instance

    @contextmanager
    def opened(self) -> Iterator[Instance]:
        with self.instance(self.copy()) as instance:
            wait_until_open(instance, "postgres", timeout=LIMIT_S)
            yield instance

    def verdicts(self, instance: Instance) -> dict[str, TableVerdict]:
        found = restored_tables(instance, self.start, self.end, statement_timeout_s=LIMIT_S)
        return {verdict.table.rsplit(".", 1)[1]: verdict for verdict in found}


@contextmanager
def restore_lab(major: int) -> Iterator[RestoreLab]:
    bin_directory = postgres_programs.find(major)
    assert bin_directory is not None
    options = ClusterOptions(fsync=False, settings={"max_connections": "137"})
    with ExitStack() as stack:
        root = Path(stack.enter_context(TemporaryDirectory(prefix="pgk-")))
        root.chmod(0o711)
        source = PostgresServer.create(bin_directory, root / "source", options)
        stack.enter_context(source)
        with source.connect() as sql:
            sql.execute("CREATE TABLE quiet AS SELECT generate_series(1, 1000) AS id")
            sql.execute("CREATE INDEX ON quiet (id)")
            sql.execute("CREATE TABLE busy AS SELECT generate_series(1, 1000) AS id")
            sql.execute("CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS id")
        programs = find_programs(major, [bin_directory])
        account = account_named(None)
        yield _take_backup(source, programs, account, root)


def _take_backup(
    source: PostgresServer, programs: Programs, account: Account | None, root: Path
) -> RestoreLab:
    """pg_basebackup between two rounds of facts, while `busy` changes before, during and after."""

    def facts(since: tuple[SnapshotFacts, ...] = ()) -> tuple[SnapshotFacts, ...]:
        return table_facts(
            lambda database: connect_sql(source.dsn(database)),
            TABLES,
            since=since,
            statement_timeout_s=LIMIT_S,
        )

    with closing(source.connect()) as sql:
        start = facts()
        sql.execute("UPDATE busy SET id = -id WHERE id <= 10")
        backup = root / "backup"
        with source.connect() as other, other.transaction():
            other.execute("INSERT INTO busy SELECT generate_series(2001, 2005)")
            _base_backup(source, backup)
        sql.execute("DELETE FROM busy WHERE id BETWEEN 11 AND 15")
        return RestoreLab(source, programs, account, root, backup, start, facts(start))


def _base_backup(source: PostgresServer, target: Path) -> None:
    subprocess.run(
        [
            source.programs / "pg_basebackup",
            *("-d", source.dsn(), "-D", target, "-X", "fetch", "-c", "fast", "--no-sync"),
        ],
        check=True,
        capture_output=True,
        env={"LC_ALL": "C"},
    )


def flip_byte(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([old ^ 0xFF]))
