"""Answering `pgkeep-wal`: a thread for each call, and nobody but the accounts that may.

`serving` is what the agent and `serve_fetches` have in common; the latter gives WAL to one
recovery, by threads of the process that watches it.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shared.domain.cluster import ClusterName
from shared.errors import Denied, PgkeepError, Refused
from shared.event_log import log_event
from worker.commands import wal_protocol as protocol
from worker.commands.services import Services
from worker.commands.wal_client_copy import publish_client, restore_command
from worker.commands.wal_fetch import Fetcher, FetchStatistics, fetching
from worker.commands.wal_socket import Peer, listening, peer_of

__all__ = ["FetchServer", "FetchStatistics", "restore_command", "serve_fetches", "serving"]

# PostgreSQL makes one call at a time; the rest is for those whose client died before the answer.
_CALLS_AT_ONCE: Final = 16
_REQUEST_S: Final = 10.0  # for a client to say what it wants, and to take the answer
_STRANGER_S: Final = 0.2  # for one that will be refused anyway
_ACCEPT_PAUSE_S: Final = 0.1
# PostgreSQL has ended by then: nobody waits for what is still being read.
_FETCH_LAST_WORDS_S: Final = 1.0

Handler = Callable[[protocol.Request, int | None], protocol.Answer]


class WalAccountDenied(Denied):
    """An account that may not use the agent."""

    code = "wal-account-denied"
    hint = "Run it as PostgreSQL does; `drill.run_as` names PostgreSQL's account to the agent."


class WalClusterDiffers(Refused):
    """A recovery of one cluster asks the agent of another, which lacks its WAL."""

    code = "wal-cluster-differs"
    hint = "Run `pgkeep wal agent` for the restored cluster, on a `wal.socket` of its own."


class FetchServer:
    """Gives WAL to one recovery, as long as the block of `serve_fetches` lasts."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def statistics(self) -> FetchStatistics:
        return self._fetcher.statistics()

    def failure(self) -> PgkeepError | None:
        """Why the newest call that failed did."""
        return self._fetcher.failure()


@contextmanager
def serve_fetches(
    services: Services,
    cluster: ClusterName,
    *,
    socket: Path,
    spool: Path,
    accounts: frozenset[int],
    promised: Sequence[str] = (),
    timeline: int | None = None,
) -> Iterator[FetchServer]:
    """Answer `restore_command(socket)` until the block ends.

    `accounts` may ask, beside our own and root; they must be able to pass through the directory of
    the socket, which is made if it is missing. `promised` names files that the plan says exist, in
    the order in which they are needed: they are read ahead in that order, and one that is missing
    is an error, never "absent"; `timeline` is where the plan leads. Raises ClusterUnknown,
    SpoolRefused, WalSocketRefused, WalSocketTaken, WalClientOutOfReach.
    """
    with fetching(services, cluster, spool, promised, timeline) as fetcher:
        handlers = {"fetch": fetch_handler(fetcher.fetch, cluster)}
        with serving(socket, accounts, handlers, last_words_s=_FETCH_LAST_WORDS_S):
            yield FetchServer(fetcher)


def fetch_handler(fetch: Callable[[str], int | None], cluster: str) -> Handler:
    def answer(request: protocol.Request, _descriptor: int | None) -> protocol.Answer:
        # All of the other's WAL would be "absent" here, and the database opened without it.
        if request.cluster not in {None, cluster}:
            raise WalClusterDiffers(f"this agent serves {cluster}, not {request.cluster}")
        descriptor = fetch(request.name)
        return protocol.ABSENT if descriptor is None else protocol.found(descriptor)

    return answer


@contextmanager
def serving(
    path: Path,
    accounts: frozenset[int],
    handlers: Mapping[str, Handler],
    *,
    last_words_s: float | None = None,
) -> Iterator[None]:
    """Answer calls until the block ends, and then wait for those under way, `last_words_s` at most.

    Root, our own account and `accounts` may call, with the client that is put beside the socket. A
    handler's PgkeepError is its answer. Raises as `listening` and `publish_client` do.
    """
    calls = _Calls(accounts | {0, os.geteuid()}, handlers)
    with listening(path) as listener:
        publish_client(path.parent, accounts)
        thread = threading.Thread(
            target=calls.accept, args=(listener,), name="pgkeep-wal-accept", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            calls.refuse_more(listener)
            thread.join()
            calls.finish(last_words_s)


class _Calls:
    """Those under way, each in a thread of its own."""

    def __init__(self, accounts: frozenset[int], handlers: Mapping[str, Handler]) -> None:
        self._accounts = accounts
        self._handlers = handlers
        self._under_way = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()

    def accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            with self._changed:
                self._changed.wait_for(
                    lambda: self._under_way < _CALLS_AT_ONCE or self._stopping.is_set()
                )
            try:
                connection, _ = listener.accept()
            except OSError as error:
                self._note_trouble(error)
                continue
            self._count(1)
            threading.Thread(
                target=self._serve, args=(connection,), name="pgkeep-wal-call", daemon=True
            ).start()

    def refuse_more(self, listener: socket.socket) -> None:
        self._stopping.set()
        self._count(0)
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept

    def finish(self, limit_s: float | None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._under_way == 0, limit_s)

    def _note_trouble(self, error: OSError) -> None:
        """Short of descriptors, say: that passes."""
        if not self._stopping.wait(_ACCEPT_PAUSE_S):
            log_event("wal-accept-failed", level=logging.ERROR, error=str(error))

    def _count(self, change: int) -> None:
        with self._changed:
            self._under_way += change
            self._changed.notify_all()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                peer = peer_of(connection)
                connection.settimeout(_REQUEST_S if peer.uid in self._accounts else _STRANGER_S)
                protocol.send(connection, self._answer(connection, peer))
        finally:
            self._count(-1)

    def _answer(self, connection: socket.socket, peer: Peer) -> protocol.Answer:
        verb = name = ""
        descriptor = None
        try:
            received = protocol.receive(connection)
            descriptor = received.descriptor
            if peer.uid not in self._accounts:
                raise WalAccountDenied(f"account {peer.uid} may not use this agent")
            request = protocol.Request.parse(received.line)
            verb, name = request.verb, request.name
            return self._handler(verb)(request, descriptor)
        except PgkeepError as error:
            log_event(
                "wal-call-failed",
                level=logging.WARNING,
                verb=verb,
                name=name,
                account=peer.uid,
                code=error.code,
                fact=error.fact,
            )
            return protocol.failed(error)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _handler(self, verb: str) -> Handler:
        try:
            return self._handlers[verb]
        except KeyError:
            raise protocol.WalRequestInvalid(f"nobody serves {verb!r} here") from None
