"""The part of `pgkeep check` that asks a cluster's servers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from shared.domain.cluster import cluster_name
from shared.domain.drill import TableState
from shared.errors import PgkeepError
from shared.repository.backups import read_cluster
from shared.settings import ClusterSettings
from worker.commands.backup_source import require_usable, standby_settings
from worker.commands.check_result import Advice, CheckFailed
from worker.commands.cluster_identity import WrongSystem
from worker.commands.cluster_login import connect_to, conninfo_of
from worker.commands.incremental_check import incrementals
from worker.commands.services import Services
from worker.postgres.cluster_facts import ServerFacts, server_facts
from worker.postgres.connection import connect
from worker.postgres.prerequisites import Lack, SlotWish, lacks
from worker.postgres.programs import account_named, find_programs
from worker.postgres.refused_login import lacks_of_refusal
from worker.postgres.replication import identify_system
from worker.postgres.table_facts import TableName, table_facts
from worker.postgres.table_rights import lacks_of_tables


@dataclass(frozen=True, slots=True)
class AskedServer:
    """One that is asked: `label` for people, `settings` to connect with."""

    label: str
    settings: ClusterSettings


@dataclass(frozen=True, slots=True)
class Look:
    """One check. `ask` raises what is wrong; what is said of no server has none."""

    name: str
    ask: Callable[[], str | Advice]
    server: AskedServer | None = None


def cluster_checks(services: Services, cluster: ClusterSettings) -> Iterator[Look]:
    """In the order in which a backup would meet the trouble."""
    primary = AskedServer(cluster.name, cluster)

    def look(name: str, ask: Callable[[], str | Advice], server: AskedServer = primary) -> Look:
        return Look(f"{cluster.name}: {name}", ask, server)

    slot = SlotWish(cluster.wal.slot, cluster.wal.create_slot)
    yield look("grants and settings", partial(_grants_and_settings, cluster, slot))
    yield look("replication", partial(_replication, services, cluster))
    yield look("server", partial(_server, cluster))
    settings = standby_settings(cluster)
    standby = None if settings is None else AskedServer(f"the standby of {cluster.name}", settings)
    if standby is not None:
        ask = partial(_grants_and_settings, standby.settings, None)
        yield look("standby's settings", ask, standby)
        usable = partial(_standby, services, cluster, standby.settings)
        yield look("standby", usable, standby)
    for name, source in _incremental_sources(primary, standby):
        yield look(name, partial(incrementals, source.settings, services.clocks.now()), source)
    if cluster.tables:
        yield look("tables", partial(_tables, services, cluster))
    yield look("programs", partial(_programs, services, cluster))


def lacks_behind(error: PgkeepError, server: AskedServer | None) -> tuple[Lack, ...]:
    """What would have kept the error from being raised, as far as it is known."""
    if isinstance(error, CheckFailed):
        return error.lacks
    if server is None:
        return ()
    try:
        settings = server.settings.model_copy(update={"entra": None})
        return lacks_of_refusal(error.fact, conninfo_of(settings, settings.database))
    except PgkeepError:
        return ()  # the connection string itself does not read, as the error says


def _grants_and_settings(server: ClusterSettings, slot: SlotWish | None) -> Advice:
    found = lacks(connect_to(server), server.database, slot)
    needed = [lack for lack in found if lack.needed]
    facts = "; ".join(lack.fact for lack in found)
    if needed:
        raise CheckFailed(facts, hint="Run what is printed for it.", lacks=found)
    if found:
        return Advice(f"they suffice, but {facts}", tuple(found))
    return Advice("they are all that backups and WAL need")


def _replication(services: Services, cluster: ClusterSettings) -> str:
    connection = connect(conninfo_of(cluster), replication=True)
    try:
        identity = identify_system(connection)
    finally:
        connection.finish()
    known = read_cluster(services.store, cluster_name(cluster.name), services.pinned)
    if known and known.system_identifier != str(identity.system_identifier):
        raise WrongSystem(
            f"cluster {cluster.name} is system {known.system_identifier}, "
            f"but system {identity.system_identifier} answers"
        )
    registered = "registered" if known else "will be registered at its first backup"
    return f"system {identity.system_identifier} on timeline {identity.timeline}, {registered}"


def _facts(cluster: ClusterSettings) -> ServerFacts:
    return server_facts(connect_to(cluster), cluster.database)


def _server(cluster: ClusterSettings) -> str:
    facts = _facts(cluster)
    level = facts.settings.get("wal_level")
    checksums = "on" if facts.data_checksums else "OFF: damaged pages will not be noticed"
    return f"PostgreSQL {facts.version}, wal_level {level}, page checksums {checksums}"


def _standby(services: Services, cluster: ClusterSettings, standby: ClusterSettings) -> str:
    behind = require_usable(cluster, standby, clock=services.clocks.monotonic)
    if behind is None:
        return "backups can be read from it; how far it is behind, the primary does not answer"
    return f"backups can be read from it; it is {behind} bytes behind the primary"


def _incremental_sources(
    primary: AskedServer, standby: AskedServer | None
) -> Iterator[tuple[str, AskedServer]]:
    """Each server that one may be read from: summaries are not replicated."""
    cluster = primary.settings
    if not cluster.schedule.incremental:
        return
    if standby is not None:
        yield "standby's incrementals", standby
    if standby is None or not cluster.standby_required:
        yield "incrementals", primary


def _tables(services: Services, cluster: ClusterSettings) -> str:
    names = [TableName.parse(name, default_database=cluster.database) for name in cluster.tables]
    snapshots = table_facts(
        connect_to(cluster),
        names,
        statement_timeout_s=services.settings.drill.statement_timeout_s,
    )
    tables = [table for snapshot in snapshots for table in snapshot.tables]
    bad = [
        f"{table.table} is {table.state}{f' ({table.problem})' if table.problem else ''}"
        for table in tables
        if table.state is not TableState.COUNTED
    ]
    if bad:
        raise CheckFailed(
            "; ".join(bad),
            hint="Grant SELECT on them, or correct the names.",
            lacks=lacks_of_tables(connect_to(cluster), names),
        )
    return f"{len(tables)} tables can be counted"


def _programs(services: Services, cluster: ClusterSettings) -> str:
    drill = services.settings.drill
    account = account_named(drill.run_as)
    major = _facts(cluster).version_num // 10_000
    programs = find_programs(major, drill.program_directories)
    as_whom = f" as {account.name}" if account else ""
    return f"drills run PostgreSQL {programs.version}{as_whom}"
