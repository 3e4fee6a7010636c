"""A recovery from the copy before the segments to their end, from whatever archive."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from local.benchmark.measure import ContenderFailed, cpu_of_machine
from local.benchmark.place import Place
from local.benchmark.wal.archives import Fetching
from local.benchmark.wal.report import Moved
from local.benchmark.wal.supply import Supply, copy_of_base
from local.postgres_initdb import append_settings
from local.postgres_server import PostgresServer
from local.processes import wait_until

_LIMIT_S = 900.0
_LOOK_EVERY_S = 0.01
_LAST_WORDS = 2_000  # characters of the server's log that an error quotes


def replay(
    place: Place, supply: Supply, fetching: Callable[[Path], AbstractContextManager[Fetching]]
) -> Moved:
    """From the start of the server until it is open for writing. Raises ContenderFailed."""
    with place.target("wal-replay") as data:
        copy_of_base(supply, place, data)
        (data / "recovery.signal").touch()
        with fetching(data) as fetch:
            append_settings(
                data,
                {
                    "restore_command": fetch.command,
                    "recovery_target_timeline": "current",
                    "hot_standby": "off",  # nobody looks meanwhile
                },
            )
            server = PostgresServer(supply.server.programs, data.parent, supply.server.passwords)
            started, cpu = time.monotonic(), cpu_of_machine()
            server.start()
            try:
                _await_end(server)
                wall, busy = time.monotonic() - started, cpu_of_machine() - cpu
                waited = fetch.waited_s()
                _require_all(server, supply)
            finally:
                server.stop()
    return Moved(wall, busy, waited_s=waited)


def _await_end(server: PostgresServer) -> None:
    if not wait_until(lambda: server.is_open or not server.running, _LIMIT_S, every=_LOOK_EVERY_S):
        raise ContenderFailed(f"the recovery did not end in {_LIMIT_S:g} s")
    if not server.running:
        raise ContenderFailed(f"the recovery failed: {server.log()[-_LAST_WORDS:]}")


def _require_all(server: PostgresServer, supply: Supply) -> None:
    """A recovery that found no segment at all would be the fastest."""
    [(newest,)] = server.query("select pg_walfile_name(pg_current_wal_lsn())")
    if newest[8:] < supply.names[-1][8:]:
        raise ContenderFailed(f"the recovery ended in {newest}, before {supply.names[-1]}")
