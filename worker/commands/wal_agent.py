"""The resident agent: what `archive_command` and `restore_command` on a server's host talk to.

It starts without storage and without the server, and answers with the error that each call meets:
PostgreSQL keeps the segment and tries again (W12).
"""

import pwd
import threading
from contextlib import ExitStack, closing, nullcontext, suppress
from pathlib import Path
from typing import Final

from shared.domain.cluster import cluster_name
from shared.domain.wal_segment import WalFileName
from shared.event_log import log_event
from shared.repository.backups import read_cluster
from shared.repository.documents import ClusterDocument
from shared.settings import ClusterSettings
from shared.telemetry.metric_names import WAL_ACKNOWLEDGE
from worker.commands import wal_protocol as protocol
from worker.commands.cluster_identity import register
from worker.commands.cluster_login import conninfo_of
from worker.commands.services import Services
from worker.commands.wal_archive import WalArchive
from worker.commands.wal_archived import AgentReports, ArchivedThrough
from worker.commands.wal_client_copy import archive_command, restore_command
from worker.commands.wal_fetch import Fetcher, fetching
from worker.commands.wal_push import FileIdentity, WalFileRefused, push_file
from worker.commands.wal_push_ahead import Handed, Pushes, waiting_names
from worker.commands.wal_reporter import WalReporter, open_reporter
from worker.commands.wal_server import Handler, fetch_handler, serving
from worker.postgres.connection import connect
from worker.postgres.programs import account_named
from worker.postgres.replication import identify_system

# The account of Debian's and Red Hat's packages.
_USUAL_ACCOUNT: Final = "postgres"
# PostgreSQL's default segment size.
_LIGHT: Final = 16 << 20


def run_agent(services: Services, cluster: ClusterSettings, *, stop: threading.Event) -> None:
    """Serve pushes and fetches on the settings' socket until `stop`; then end what is under way.

    Raises WalSocketTaken, WalSocketRefused, WalClientOutOfReach, SpoolRefused.
    """
    wal = services.settings.wal
    with ExitStack() as at_the_end:
        reporter = at_the_end.enter_context(open_reporter(services.settings))
        pusher = at_the_end.enter_context(closing(Pusher(services, cluster, reporter)))
        fetcher = at_the_end.enter_context(closing(LateFetcher(services, cluster)))
        handlers: dict[str, Handler] = {
            "push": pusher.answer,
            "fetch": fetch_handler(fetcher.fetch, cluster.name),
        }
        accounts = postgres_accounts(services.settings.drill.run_as)
        at_the_end.enter_context(serving(wal.socket, accounts, handlers))
        log_event(
            "wal-agent-started",
            cluster=cluster.name,
            archive_command=archive_command(wal.socket),
            restore_command=restore_command(wal.socket, cluster.name),
        )
        pusher.report()
        services.alive()
        while not stop.wait(wal.report_seconds):
            services.alive()
            pusher.report()
        log_event("wal-agent-stopping", cluster=cluster.name)


def postgres_accounts(named: str | None) -> frozenset[int]:
    """PostgreSQL's account: the one that is named, else the usual one if this host has it."""
    account = account_named(named)
    if account is not None:
        return frozenset({account.uid})
    with suppress(KeyError):
        return frozenset({pwd.getpwnam(named or _USUAL_ACCOUNT).pw_uid})
    return frozenset()


class Pusher:
    """Answers pushes of one cluster. Safe to use from several threads; close it."""

    def __init__(self, services: Services, cluster: ClusterSettings, reporter: WalReporter) -> None:
        self._services = services
        self._cluster = cluster
        self._reporter = reporter
        self._opened: tuple[WalArchive, ClusterDocument] | None = None
        self._opening = threading.Lock()
        self._heavy = threading.Lock()
        self._archived = ArchivedThrough()
        self._reports = AgentReports(services, cluster, self._archived)
        self._pushes = Pushes(self._push_one, parallel=services.settings.wal.parallel)

    def answer(self, request: protocol.Request, descriptor: int | None) -> protocol.Answer:
        name = WalFileName.parse(request.name)
        if descriptor is None:
            raise WalFileRefused(f"{name} came without a file")
        clock = self._services.clocks.monotonic
        asked_at = clock()
        self._pushes.push(Handed(name, descriptor, Path(request.path)))
        self._archived.confirm(name)
        seconds, cluster = clock() - asked_at, self._cluster.name
        self._services.telemetry.record(WAL_ACKNOWLEDGE, seconds, cluster=cluster)
        return protocol.DONE

    def report(self) -> None:
        folder = self._pushes.folder()
        waiting = None if folder is None else waiting_names(folder)
        progress = self._reports.progress(None if waiting is None else len(waiting))
        if progress is not None:
            self._reporter.send(progress)

    def close(self) -> None:
        self._pushes.close()
        if self._opened is not None:
            self._opened[0].close()

    def _push_one(self, identity: FileIdentity, descriptor: int) -> None:
        archive, document = self._archive()
        # Large segments one by one, or memory would grow with their size times `parallel`.
        with self._heavy if identity.size > _LIGHT else nullcontext():
            pushed = push_file(archive, document, identity, descriptor)
        if pushed is not None:
            self._archived.add(pushed)

    def _archive(self) -> tuple[WalArchive, ClusterDocument]:
        with self._opening:
            if self._opened is None:
                document = registered(self._services, self._cluster)
                archive = WalArchive(self._services, document, self._reporter, "agent")
                self._opened = archive, document
            return self._opened


class LateFetcher:
    """Answers fetches from the first one on: an agent that only pushes reads nothing."""

    def __init__(self, services: Services, cluster: ClusterSettings) -> None:
        self._services = services
        self._cluster = cluster_name(cluster.name)
        self._fetcher: Fetcher | None = None
        self._opening = threading.Lock()
        self._at_the_end = ExitStack()

    def fetch(self, name: str) -> int | None:
        return self._opened().fetch(name)

    def close(self) -> None:
        self._at_the_end.close()

    def _opened(self) -> Fetcher:
        with self._opening:
            if self._fetcher is None:
                spool = self._services.settings.wal.spool
                opened = fetching(self._services, self._cluster, spool)
                self._fetcher = self._at_the_end.enter_context(opened)
            return self._fetcher


def registered(services: Services, cluster: ClusterSettings) -> ClusterDocument:
    """The cluster's document; at first contact the server says which system it is."""
    name = cluster_name(cluster.name)
    known = read_cluster(services.store, name, services.pinned)
    if known is not None:
        return known
    connection = connect(conninfo_of(cluster), replication=True)
    try:
        identity = identify_system(connection)
    finally:
        connection.finish()
    return register(services, name, str(identity.system_identifier))
