"""One run: a cluster with a heartbeat, its WAL received; then the host is lost, and what is in the
repository is recovered to its end.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from psycopg.conninfo import make_conninfo

from local.azurite import EmulatedAccount
from local.configuration import Toml, account_section, keys_section, toml_table
from local.document_database.heartbeat import Pulse, beating, create_heartbeat
from local.pgkeep_verb import pgkeep
from local.postgres_initdb import (
    BACKUP_USER,
    ClusterOptions,
    write_passfile,
)
from local.postgres_server import PostgresServer
from local.processes import Program, program, wait_until
from local.rpo.report import Loss, Run
from local.unprivileged import Account
from shared.errors import Unavailable
from worker.keys.generate import KeySet

BEAT_S = 0.2
_RECEIVER = "pgkeep"  # application_name and slot, as the settings have them by default
_STREAMING_S = 30.0
_STOP_S = 30.0
_SMALL = {"shared_buffers": "16MB", "max_connections": "20", "autovacuum": "off"}


class RunFailed(Unavailable):
    """The WAL receiver did not do its part, or the copy holds nothing to measure by."""

    code = "rpo-run-failed"
    hint = "The message ends with what the program said, if any."


@dataclass(frozen=True, slots=True)
class Ground:
    """What all runs share."""

    folder: Path
    storage: EmulatedAccount
    keys: KeySet
    programs: Path
    account: Account | None


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: for how long the cluster lives, and how it dies."""

    name: str
    lives_s: float
    loss: Loss
    flush_s: float
    synchronous: bool


@dataclass(frozen=True, slots=True)
class _Copy:
    """What the restored heartbeat says."""

    newest: datetime
    number: int


def kill_and_restore(ground: Ground, plan: Plan) -> Run:
    """Raises RunFailed, VerbFailed. Leaves nothing but blobs behind."""
    folder = ground.folder / plan.name
    options = ClusterOptions(fsync=False, settings=_SMALL)
    source = PostgresServer.create(ground.programs, folder, options)
    config = folder / "pgkeep.toml"
    try:
        with source:
            config.touch(0o600)
            config.write_text(_settings(ground, plan, source), "utf-8")
            killed_at, pulse = _live_and_die(source, plan, config)
        began = time.monotonic()
        copy = _restored(ground, plan, source, config)
        rto = time.monotonic() - began
    finally:
        shutil.rmtree(folder)
    return Run(
        lived_s=round(plan.lives_s, 3),
        rpo_s=round((killed_at - copy.newest).total_seconds(), 3),
        lost_commits=max(0, pulse.acknowledged - copy.number),
        rto_s=round(rto, 3),
    )


def _live_and_die(source: PostgresServer, plan: Plan, config: Path) -> tuple[datetime, Pulse]:
    """When it was killed, and which commits had returned by then."""
    with source.connect() as connection:
        create_heartbeat(connection)
    pgkeep(config, "backup", plan.name)
    receive = [sys.executable, "-m", "worker", "wal", "receive", plan.name, "--config", str(config)]
    with program(receive, config.with_name("wal.log")) as receiver:
        _await_streaming(source, receiver)
        if plan.synchronous:
            source.configure({"synchronous_standby_names": _RECEIVER})
            source.reload()
        with beating(source.dsn(), every_s=BEAT_S) as pulse:
            threading.Event().wait(plan.lives_s)
            receiver.check()
            killed_at = datetime.now(UTC)
            _lose(source, receiver, plan.loss)
    return killed_at, pulse


def _lose(source: PostgresServer, receiver: Program, loss: Loss) -> None:
    """A receiver that lives on is asked to end, as by its supervisor, and stores what it has."""
    if loss is Loss.BOTH:
        os.killpg(receiver.process.pid, signal.SIGKILL)
    source.kill()
    shutil.rmtree(source.data)
    receiver.process.terminate()
    try:
        receiver.process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        raise RunFailed(f"the receiver did not end: {receiver.last_words()}") from None


def _await_streaming(source: PostgresServer, receiver: Program) -> None:
    def streams() -> bool:
        receiver.check()
        return bool(source.query("select 1 from pg_stat_replication where state = 'streaming'"))

    if not wait_until(streams, _STREAMING_S):
        raise RunFailed(f"the receiver does not stream: {receiver.last_words()}")


def _restored(ground: Ground, plan: Plan, source: PostgresServer, config: Path) -> _Copy:
    directory = ground.folder / plan.name / "restored"
    owner = () if ground.account is None else ("--owner", ground.account.name)
    words = ("restore", plan.name, str(directory / "data"), "--to-latest", "--recover", *owner)
    pgkeep(config, *words)
    with PostgresServer(ground.programs, directory, source.passwords) as server:
        [(newest, number)] = server.query("select max(at), max(id) from heartbeat")
    if newest is None:
        raise RunFailed("the restored copy holds no heartbeat")
    return _Copy(newest, number)


def _settings(ground: Ground, plan: Plan, source: PostgresServer) -> str:
    passfile = source.directory / "backup_user.passfile"
    write_passfile(passfile, {BACKUP_USER: source.passwords[BACKUP_USER]})
    repository = account_section(ground.storage, ground.storage.blob_url)
    drill: dict[str, Toml] = {
        "scratch": ground.folder / "scratch",
        "program_directories": [ground.programs],
    }
    if ground.account is not None:
        drill["run_as"] = ground.account.name
    cluster: dict[str, Toml] = {
        "name": plan.name,
        "dsn": make_conninfo(host="127.0.0.1", port=source.port, user=BACKUP_USER),
        "password_file": passfile,
    }
    wal: dict[str, Toml] = {
        "slot": _RECEIVER,
        "flush_seconds": plan.flush_s,
        "synchronous": plan.synchronous,
    }
    spool: dict[str, Toml] = {
        "socket": ground.folder / "wal.sock",
        "spool": ground.folder / "spool",
    }
    return "\n\n".join(
        [
            'profile = "development"',
            toml_table("[repository]", {"type": "azure", **repository}),
            toml_table("[keys]", keys_section(ground.keys)),
            toml_table("[wal]", spool),
            toml_table("[drill]", drill),
            toml_table("[[cluster]]", cluster),
            toml_table("[cluster.wal]", wal),
        ]
    )
