"""PostgreSQL's own pg_basebackup into a RAM disk: nothing compressed, encrypted or sent."""

from local.benchmark.measure import Command, Usage, run_measured
from local.benchmark.place import Place, environment, server_pids
from local.benchmark.source import settle
from local.postgres_initdb import BACKUP_USER
from local.postgres_server import PostgresServer


def measure(place: Place, source: PostgresServer) -> Usage:
    settle(source)
    with place.target("pg_basebackup") as target:
        arguments = [
            str(source.programs / "pg_basebackup"),
            f"--pgdata={target}",
            f"--dbname={source.dsn(user=BACKUP_USER)}",
            *("--checkpoint=fast", "--wal-method=fetch", "--no-sync"),
        ]
        command = Command(arguments, environment(), place.account)
        log = place.work / "pg_basebackup.log"
        return run_measured(command, server_pids(source), log).usage
