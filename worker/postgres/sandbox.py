"""Command-line parameters and session options that contain a hostile restored cluster.

The command line beats postgresql.conf and postgresql.auto.conf, and is beaten by ALTER DATABASE and
ALTER ROLE ... SET, which connection options beat in turn [tried on 15 and 17].
"""

from dataclasses import dataclass
from typing import Final

from worker.postgres.programs import ControlData, Programs
from worker.postgres.scratch import Scratch

PORT: Final = 5432  # only names the socket file: nothing listens on TCP
EVENT_TRIGGERS_SINCE: Final = 17  # earlier majors refuse to start with the parameter [tried]
IO_METHOD_SINCE: Final = 18

# Options of every session: they alone beat ALTER DATABASE and ALTER ROLE ... SET. A role that is
# no superuser needs GRANT SET ON PARAMETER for the first; ALTER ROLE ... SET it to '' does not do:
# it stores one library with an empty name [tried on 17].
SESSION_OPTIONS: Final = (
    "-c session_preload_libraries= -c local_preload_libraries= -c jit=off -c search_path="
)
_CONTAINMENT: Final = {
    # no way out
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "unix_socket_group": "",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "max_logical_replication_workers": "0",
    "synchronous_standby_names": "",
    "ssl": "off",
    "bonjour": "off",
    # no program and no library of theirs
    "archive_mode": "off",
    "archive_command": "",
    "archive_library": "",
    "archive_cleanup_command": "",
    "recovery_end_command": "",
    "shared_preload_libraries": "",
    "local_preload_libraries": "",
    "session_preload_libraries": "",
    "dynamic_library_path": "$libdir",
    "jit": "off",
    "jit_provider": "llvmjit",
    # errors are seen, in words that we can read, where we look
    "ignore_checksum_failure": "off",
    "ignore_invalid_pages": "off",
    "ignore_system_indexes": "off",
    "zero_damaged_pages": "off",
    "restart_after_crash": "off",
    "lc_messages": "C",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_messages": "warning",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "external_pid_file": "",
    # nothing of the source's size or habits
    "hot_standby": "on",
    "wal_level": "replica",
    "autovacuum": "off",
    "huge_pages": "off",
    "default_tablespace": "",
    "temp_tablespaces": "",
    # recovery panics over a directory where a tablespace's link is due; 15.0 and later know it
    "allow_in_place_tablespaces": "on",
}


@dataclass(frozen=True, slots=True)
class Sizing:
    """What the drill host can afford, in place of what the source could."""

    shared_buffers_mb: int = 128
    fsync: bool = False


DEFAULT_SIZING: Final = Sizing()


def sandbox(
    scratch: Scratch, programs: Programs, control: ControlData, sizing: Sizing
) -> dict[str, str]:
    """Parameters that beat whatever the restored configuration says."""
    parameters = _places(scratch) | _CONTAINMENT | _from_control(control)
    parameters["shared_buffers"] = f"{sizing.shared_buffers_mb}MB"
    parameters["fsync"] = "on" if sizing.fsync else "off"
    if programs.major >= EVENT_TRIGGERS_SINCE:
        parameters |= {"event_triggers": "off", "summarize_wal": "off"}
        parameters["sync_replication_slots"] = "off"
    if programs.major >= IO_METHOD_SINCE:
        parameters["io_method"] = "worker"
    return parameters


def _places(scratch: Scratch) -> dict[str, str]:
    return {
        "config_file": str(scratch.directory / "postgresql.conf"),
        "hba_file": str(scratch.directory / "pg_hba.conf"),
        "ident_file": str(scratch.directory / "pg_ident.conf"),
        "data_directory": str(scratch.data),
        "unix_socket_directories": str(scratch.socket),
        "port": str(PORT),
    }


def _from_control(control: ControlData) -> dict[str, str]:
    """Recovery refuses to start with less than the source had (hot-standby.sgml)."""
    return {
        "max_connections": str(control.max_connections),
        "max_worker_processes": str(control.max_worker_processes),
        "max_wal_senders": str(control.max_wal_senders),
        "max_prepared_transactions": str(control.max_prepared_transactions),
        "max_locks_per_transaction": str(control.max_locks_per_transaction),
    }
