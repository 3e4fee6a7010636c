"""Which server of a cluster a backup is read from: its standby, where one is set and of use.

A standby of another cluster is a mistake in the settings and always an error. One that is away,
was promoted, or stands still is passed over, with the reason, unless the settings require it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final

from shared.domain.lsn import Lsn
from shared.errors import Denied, Refused, Unavailable
from shared.event_log import log_event
from shared.settings import ClusterSettings
from worker.commands.cluster_identity import WrongSystem
from worker.commands.cluster_login import conninfo_of
from worker.commands.services import Services
from worker.postgres.connection import connect, connect_sql, describe, resolve
from worker.postgres.restartpoint import RESTARTPOINT_PATIENCE_S, await_restartpoint
from worker.postgres.server_position import (
    Connection,
    ServerPosition,
    position_if_it_answers,
    server_position,
)

# A server that answers at all does so within a round trip or two; a backup shall not wait longer.
QUICK_CONNECT_S: Final = 5
# A query on the standby may hold replay up for max_standby_streaming_delay, 30 s by default.
REPLAY_PATIENCE_S: Final = 40.0
_LOOK_EVERY_S: Final = 0.5


class StandbyUnusable(Refused):
    """No backup can be read from the standby that the settings name."""

    code = "standby-unusable"
    hint = (
        "Mend what it names; where no standby is required, backups come from the primary meanwhile."
    )


@dataclass(frozen=True, slots=True)
class BackupSourceServer:
    """The settings to connect with: `dsn` is the chosen server's. `reason` is None for the one
    that the settings want; else why another was taken.
    """

    cluster: ClusterSettings
    reason: str | None = None


def choose_source(services: Services, cluster: ClusterSettings) -> BackupSourceServer:
    """Raises WrongSystem for a standby of another cluster, and StandbyUnusable if one is required.

    May wait for REPLAY_PATIENCE_S to see whether a standby that is behind moves on.
    """
    standby = standby_settings(cluster)
    if standby is None:
        return BackupSourceServer(cluster)
    try:
        behind = require_usable(cluster, standby, clock=services.clocks.monotonic)
    except StandbyUnusable as error:
        if cluster.standby_required:
            raise
        log_event("standby-passed-over", cluster=cluster.name, reason=error.fact)
        return BackupSourceServer(cluster, error.fact)
    log_event("standby-chosen", cluster=cluster.name, behind_bytes=behind)
    return BackupSourceServer(standby)


def standby_settings(cluster: ClusterSettings) -> ClusterSettings | None:
    """The cluster's settings with the standby's conninfo as `dsn`; None where no standby is set."""
    if cluster.standby is None:
        return None
    return cluster.model_copy(
        update={"dsn": cluster.standby, "service": None, "service_file": None}
    )


def require_usable(
    cluster: ClusterSettings,
    standby: ClusterSettings,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> int | None:
    """How many bytes of WAL the standby is behind its primary; None if that does not answer.

    Raises WrongSystem and StandbyUnusable.
    """
    try:
        connect(conninfo_of(standby), replication=True, connect_timeout=QUICK_CONNECT_S).finish()
        with _sql(standby) as connection:
            return _behind(connection, _primary_position(cluster), clock)
    except WrongSystem:
        raise
    except (Denied, Refused, Unavailable) as error:
        name = _name(standby)
        fact = error.fact if name in error.fact else f"{name}: {error.fact}"
        raise StandbyUnusable(f"the standby is of no use: {fact}") from None


def await_start_beyond(cluster: ClusterSettings, source: BackupSourceServer, beyond: Lsn) -> bool:
    """Whether a backup from the source would begin at `beyond`, its parent's stop, or later.

    On a standby that takes a checkpoint of the primary: waits for it, for RESTARTPOINT_PATIENCE_S
    at most. Raises what connecting to the source raises.
    """
    with _sql(source.cluster) as standby, _sql_if_it_answers(cluster) as primary:
        return await_restartpoint(standby, beyond, RESTARTPOINT_PATIENCE_S, primary)


def _behind(
    connection: Connection, primary: ServerPosition | None, clock: Callable[[], float]
) -> int | None:
    here = server_position(connection)
    _require_same_system(here, primary)
    if not here.in_recovery:
        raise StandbyUnusable("it is not in recovery: it was promoted, or is the primary itself")
    if here.replay_paused:
        raise StandbyUnusable(f"replay is paused at {here.position}")
    if not here.full_page_writes:
        raise StandbyUnusable("the primary ran with full_page_writes off")
    if primary is None:
        return None
    return max(0, primary.position - _moved(connection, here, primary, clock))


def _require_same_system(here: ServerPosition, primary: ServerPosition | None) -> None:
    if primary is not None and primary.system_identifier != here.system_identifier:
        raise WrongSystem(
            f"the primary is system {primary.system_identifier}, "
            f"but the standby is system {here.system_identifier}",
            hint="Correct `standby` in the settings: it names a server of another cluster.",
        )


def _moved(
    connection: Connection,
    first: ServerPosition,
    primary: ServerPosition,
    clock: Callable[[], float],
) -> Lsn:
    """The standby's position, once it has moved or if it need not."""
    pause, deadline = threading.Event(), clock() + REPLAY_PATIENCE_S
    position = first.position
    while position == first.position < primary.position:
        if clock() >= deadline:
            raise StandbyUnusable(
                f"replay stands still at {position}, "
                f"{primary.position - position} bytes behind the primary"
            )
        pause.wait(_LOOK_EVERY_S)
        position = server_position(connection).position
    return position


def _primary_position(cluster: ClusterSettings) -> ServerPosition | None:
    with _sql_if_it_answers(cluster) as connection:
        return position_if_it_answers(connection)


@contextmanager
def _sql_if_it_answers(cluster: ClusterSettings) -> Iterator[Connection | None]:
    """A primary that is away is no reason to take no backup of its standby."""
    try:
        connection = _connected(cluster)
    except (Denied, Refused, Unavailable) as error:
        log_event("primary-not-asked", cluster=cluster.name, code=error.code, fact=error.fact)
        yield None
        return
    with closing(connection):
        yield connection


def _sql(cluster: ClusterSettings) -> closing[Connection]:
    return closing(_connected(cluster))


def _connected(cluster: ClusterSettings) -> Connection:
    conninfo = conninfo_of(cluster, cluster.database)
    return connect_sql(conninfo, connect_timeout=QUICK_CONNECT_S)


def _name(cluster: ClusterSettings) -> str:
    return describe(resolve(conninfo_of(cluster), replication=False))
