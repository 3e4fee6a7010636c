"""`pgkeep check`: everything that a backup and a drill will need, looked at before they need it.

Named checks, each with its finding; a failed one carries the hint of the error it met. Nothing is
written but a lease that is given back at once.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from shared.domain.cluster import cluster_name
from shared.domain.drill import Check, CheckOutcome, TableState
from shared.errors import PgkeepError, Refused
from shared.jobs.lease import hold
from shared.repository import layout
from shared.repository.backups import read_cluster
from shared.repository.key_record import PRODUCTION_RECIPIENTS, KeyPurpose, KeyRecord, commitment
from shared.repository.key_record import new_kid as new_key_id
from shared.settings import ClusterSettings
from worker.commands.backup_source import require_usable, standby_settings
from worker.commands.cluster_identity import WrongSystem, signer_of
from worker.commands.cluster_login import connect_to, conninfo_of
from worker.commands.incremental_check import incrementals
from worker.commands.secondary import from_secondary
from worker.commands.services import Services
from worker.postgres.cluster_facts import ServerFacts, server_facts
from worker.postgres.connection import connect
from worker.postgres.prerequisites import Lack, lacks
from worker.postgres.programs import account_named, find_programs
from worker.postgres.replication import identify_system
from worker.postgres.table_facts import TableName, table_facts

# Leases and drills compare the host's clock with the storage's; this much does no harm.
TOLERATED_SKEW_S = 60


class CheckFailed(Refused):
    """Something that a check found; its fact says what."""

    code = "check-failed"
    hint = "Correct what the check names, and run `pgkeep check` again."


def check(services: Services, cluster: str | None) -> list[Check]:
    """All checks, in the order in which a backup would meet the trouble. Never raises for one."""
    named = services.settings.cluster
    wanted = named if cluster is None else (services.settings.cluster_named(cluster),)
    results = [*_run(services, "", _repository_checks(services))]
    for settings in wanted:
        results += _run(services, f"{settings.name}: ", _cluster_checks(services, settings))
    return results


Named = tuple[str, Callable[[], str]]


def _run(services: Services, prefix: str, checks: Iterator[Named]) -> Iterator[Check]:
    clock = services.clocks.monotonic
    for name, look in checks:
        began = clock()
        try:
            outcome, detail = CheckOutcome.PASSED, look()
        except PgkeepError as error:
            outcome, detail = CheckOutcome.FAILED, f"{error}. {error.advice}"
        yield Check(f"{prefix}{name}", outcome, detail, round(clock() - began, 3))


def _repository_checks(services: Services) -> Iterator[Named]:
    yield "containers", partial(_containers, services)
    yield "lease and clock", partial(_lease_and_clock, services)
    yield "recipients", partial(_recipients, services)
    yield "signing key", partial(_signing_key, services)
    if services.settings.keys.unwrap:
        yield "unwrapping key", partial(_unwrapping_key, services)
    if services.secondary is not None:
        yield "secondary", partial(_secondary, services)


def _cluster_checks(services: Services, cluster: ClusterSettings) -> Iterator[Named]:
    yield "grants and settings", partial(_grants_and_settings, cluster)
    yield "replication", partial(_replication, services, cluster)
    yield "server", partial(_server, cluster)
    standby = standby_settings(cluster)
    if standby is not None:
        yield "standby", partial(_standby, services, cluster, standby)
    for name, source in _incremental_sources(cluster, standby):
        yield name, partial(incrementals, source, services.clocks.now())
    if cluster.tables:
        yield "tables", partial(_tables, services, cluster)
    yield "programs", partial(_programs, services, cluster)


def _containers(services: Services) -> str:
    for container in layout.CONTAINERS:
        next(iter(services.store.list(container)), None)
    return f"{len(layout.CONTAINERS)} containers can be listed"


def _lease_and_clock(services: Services) -> str:
    name = layout.lock(cluster_name("pgkeep-check"), services.random(4).hex()).path
    ttl = services.settings.worker.lease_seconds
    with hold(services.leases, name, services.host, ttl_s=ttl) as renewal:
        skew = abs((renewal.lease.acquired_at - services.clocks.now()).total_seconds())
    if skew > TOLERATED_SKEW_S:
        raise CheckFailed(f"this host's clock differs from the storage's by {skew:.0f} s")
    return f"a lease was granted and given back; the clocks differ by {skew:.0f} s"


def _recipients(services: Services) -> str:
    count = len(services.settings.keys.recipients)
    if count == 0:
        raise CheckFailed("keys.recipients is empty: nothing could be sealed")
    if count < PRODUCTION_RECIPIENTS and services.settings.profile == "production":
        raise CheckFailed("keys.recipients has one key: losing it would lose every backup")
    return f"data keys are wrapped to {count} public keys"


def _signing_key(services: Services) -> str:
    signer = signer_of(services)
    if signer.key_id not in services.pinned:
        raise CheckFailed(f"signing key {signer.key_id} is not pinned: nobody would believe it")
    services.pinned[signer.key_id].verify(signer.sign(b"pgkeep check"), b"pgkeep check")
    return f"{signer.algorithm} key {signer.key_id} signs and is pinned"


def _unwrapping_key(services: Services) -> str:
    data_key, recipients = services.key_ring.new_data_key(KeyPurpose.BACKUP)
    kid = new_key_id()
    services.key_ring.unwrap(
        KeyRecord(
            kid=kid,
            cluster="pgkeep-check",
            cluster_uuid="none",
            purpose=KeyPurpose.BACKUP,
            commitment=commitment(data_key.reveal(), kid),
            recipients=tuple(recipients),
            created_at=services.clocks.now(),
        )
    )
    return "a data key that was wrapped here can be unwrapped here"


def _secondary(services: Services) -> str:
    there = from_secondary(services)
    next(iter(there.store.list(layout.EVIDENCE)), None)
    reached = there.elsewhere.last_sync_time if there.elsewhere else None
    if reached is None:
        return "it can be read; its Last Sync Time is not told to this identity"
    return f"it can be read, as of Last Sync Time {reached:%Y-%m-%dT%H:%M:%SZ}"


def _grants_and_settings(cluster: ClusterSettings) -> str:
    found = lacks(connect_to(cluster), cluster.database)
    needed = [lack for lack in found if lack.needed]
    if needed:
        facts = "; ".join(lack.fact for lack in needed)
        raise CheckFailed(facts, hint=f"Run, on that server: {_statements(needed)}")
    if found:
        return "; ".join(f"{lack.fact}. Run: {_statements([lack])}" for lack in found)
    return "the role may do, and the server is set to, all that backups and WAL need"


def _statements(lacking: Sequence[Lack]) -> str:
    """Ready to be pasted, each with when it works, as a comment of SQL."""
    return " ".join(f"{lack.statement} /* {lack.effect} */" for lack in lacking)


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
    cluster: ClusterSettings, standby: ClusterSettings | None
) -> Iterator[tuple[str, ClusterSettings]]:
    """Each server that one may be read from: summaries are not replicated."""
    if not cluster.schedule.incremental:
        return
    if standby is not None:
        yield "standby's incrementals", standby
    if standby is None or not cluster.standby_required:
        yield "incrementals", cluster


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
        raise CheckFailed("; ".join(bad), hint="Grant SELECT on them, or correct the names.")
    return f"{len(tables)} tables can be counted"


def _programs(services: Services, cluster: ClusterSettings) -> str:
    drill = services.settings.drill
    account = account_named(drill.run_as)
    major = _facts(cluster).version_num // 10_000
    programs = find_programs(major, drill.program_directories)
    as_whom = f" as {account.name}" if account else ""
    return f"drills run PostgreSQL {programs.version}{as_whom}"
