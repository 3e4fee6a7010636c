"""Each contender's archive, as PostgreSQL sees it: a command that stores, and one that fetches."""

import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from local.azurite import EmulatedAccount
from local.benchmark import pgbackrest, pgkeep
from local.benchmark.measure import ContenderFailed, run_measured
from local.benchmark.place import Place, fresh_emulator
from local.benchmark.wal.supply import SEGMENT, Supply
from local.processes import CHECKOUT, program, wait_until
from local.unprivileged import hand_over
from shared.domain.cluster import cluster_name
from shared.repository import layout
from shared.repository.azure_blob_store import open_blob_store
from worker.cli_session import open_services
from worker.commands.wal_server import restore_command, serve_fetches

_AGENT_S = 30.0


@dataclass(frozen=True, slots=True)
class Fetching:
    """`command` is a restore_command; `waited_s` what PostgreSQL has waited so far, where known."""

    command: str
    waited_s: Callable[[], float | None]


@dataclass(frozen=True, slots=True)
class Archive:
    """`tree` is what the archiver takes for its data directory: all segments wait in it.

    `push` is an archive_command; `fetching` takes the data directory that recovers.
    """

    tree: Path
    push: str
    fetching: Callable[[Path], AbstractContextManager[Fetching]]
    stored_bytes: Callable[[], int]


@contextmanager
def pgkeep_archive(place: Place, supply: Supply) -> Iterator[Archive]:
    """The agent is warm, and the repository knows the cluster by a backup."""
    with fresh_emulator(_room(supply)) as (storage, _):
        writer, reader = pgkeep.configure(place, supply.server, storage)
        log = place.work / "pgkeep-wal.log"
        run_measured(pgkeep.verb("backup", pgkeep.CLUSTER, config=writer), {}, log)
        agent = pgkeep.verb("wal", "agent", pgkeep.CLUSTER, config=writer)
        socket = place.work / "wal.sock"
        with program(agent.arguments, place.work / "agent.log") as running:
            if not wait_until(socket.exists, _AGENT_S):
                raise ContenderFailed(f"the agent did not come up: {running.last_words()}")
            yield Archive(
                tree=_tree(place, supply),
                push=f"{_client(place)} --socket {socket} push %p %f",
                fetching=partial(_serving, place, supply, reader),
                stored_bytes=partial(_stored, storage, layout.WAL),
            )


@contextmanager
def pgbackrest_archive(place: Place, supply: Supply, *, cipher: bool) -> Iterator[Archive]:
    """Asynchronous, as its manual advises for object stores."""
    with fresh_emulator(_room(supply)) as (storage, _):
        store = open_blob_store(storage.blob_url, storage.credential, ca_file=str(storage.ca_file))
        store.create_container(pgbackrest.CONTAINER)
        store.close()
        tree = _tree(place, supply)
        config = pgbackrest.configure(place, supply.server, storage, cipher=cipher, data=tree)
        command = f"pgbackrest --config={config} --stanza={pgbackrest.STANZA}"
        run = pgbackrest.Run(place, supply.server, config)
        run_measured(run.command("stanza-create", "--no-online"), {}, run.log)

        @contextmanager
        def fetching(data: Path) -> Iterator[Fetching]:
            yield Fetching(f'{command} --pg1-path={data} archive-get %f "%p"', lambda: None)

        yield Archive(
            tree=tree,
            push=f"{command} archive-push %p",
            fetching=fetching,
            stored_bytes=partial(_stored, storage, pgbackrest.CONTAINER),
        )


@contextmanager
def local_copy(supply: Supply, _data: Path) -> Iterator[Fetching]:
    """The bound of every replay: the segments lie in a directory beside the server."""
    yield Fetching(f"cp {supply.folder}/%f %p", lambda: None)


@contextmanager
def _serving(place: Place, supply: Supply, reader: Path, _data: Path) -> Iterator[Fetching]:
    """As a restore or a drill serves its own server."""
    accounts = frozenset({place.account.uid} if place.account else ())
    socket = place.work / "fetch.sock"
    with (
        open_services(str(reader), quiet=True) as services,
        serve_fetches(
            services,
            cluster_name(pgkeep.CLUSTER),
            socket=socket,
            spool=place.fast / "wal-spool",
            accounts=accounts,
            promised=supply.names,
        ) as server,
    ):
        yield Fetching(restore_command(socket), lambda: server.statistics().waited_s)


def _tree(place: Place, supply: Supply) -> Path:
    """What an archiver needs of a data directory: the segments, and that they are ready."""
    tree = place.folder("wal-tree")
    status = tree / "pg_wal" / "archive_status"
    status.mkdir(parents=True)
    for name in supply.names:
        (tree / "pg_wal" / name).hardlink_to(supply.folder / name)
        (status / f"{name}.ready").touch()
    (tree / "global").mkdir()
    shutil.copy(supply.base / "global" / "pg_control", tree / "global")
    shutil.copy(supply.base / "PG_VERSION", tree)
    hand_over(tree, place.account)
    return tree


def _client(place: Place) -> Path:
    """A copy that PostgreSQL's account can run, as it is installed on a server's host."""
    client = place.work / "pgkeep-wal"
    shutil.copy(CHECKOUT / "worker" / "pgkeep_wal.py", client)
    client.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    return client


def _room(supply: Supply) -> int:
    return len(supply.names) * SEGMENT


def _stored(storage: EmulatedAccount, container: str) -> int:
    store = open_blob_store(storage.blob_url, storage.credential, ca_file=str(storage.ca_file))
    size = sum(blob.size for blob in store.list(container))
    store.close()
    return size
