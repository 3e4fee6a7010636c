"""A TCP proxy in front of any server, that fails on order: refuses, falls silent, cuts.

Works on bytes and knows no protocol, so it stands in front of PostgreSQL and of TLS as well. It
notes whether each fault that was ordered met a connection, and `close` raises when one did not:
a test of a fault must not pass without the fault.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, suppress
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest

Result = TypeVar("Result")
OpenProxy = Callable[[str, int], "TcpProxy"]

_CALL_LIMIT_S = 10
_PIECE = 64 * 1024
# Linger for zero seconds: the peer sees a reset, as when a machine dies, and no orderly end.
_RESET = struct.pack("ii", 1, 0)


class Towards(StrEnum):
    """Which way bytes flow."""

    SERVER = "server"
    CLIENT = "client"


class FaultNeverFired(AssertionError):
    """A fault was ordered, and no connection met it."""


class TcpProxy:
    """Listens on 127.0.0.1:`port` and passes everything on, both ways, until told otherwise.

    A thread of its own runs it; the methods may be called from any other.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0  # any at the first start, then the same for ever
        self._upstream = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._hearing = asyncio.Event()
        self._cut_at: dict[Towards, int] = {}
        self._passed = dict.fromkeys(Towards, 0)
        self._fired: dict[str, bool] = {}
        self._hearing.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy")
        self._thread.start()
        self.start()

    def start(self) -> None:
        """Accept connections and pass bytes on, after `stop` or `deafen`; on the same port."""
        self._run(self._start())

    def stop(self) -> None:
        """As if the server died: connections are reset, and new ones refused until `start`."""
        self._run(self._stop())

    def deafen(self) -> None:
        """As if the network swallowed all: connections are accepted, and nothing comes back."""
        self._run(self._deafen())

    def cut_all(self) -> None:
        """Reset the connections there are now; new ones are welcome. Raises FaultNeverFired."""
        if not self._run(self._cut()):
            raise FaultNeverFired("cut_all: there is no connection")

    def cut_after(self, n_bytes: int, towards: Towards = Towards.CLIENT) -> None:
        """Once, when `n_bytes` more have come through this way, reset every connection.

        The peer gets at most that many: a reset overtakes what is still on its way.
        """
        self._run(self._order_cut(n_bytes, towards))

    def passed(self, towards: Towards) -> int:
        """How many bytes have come through this way so far, over all connections."""
        return self._passed[towards]

    def assert_fired(self) -> None:
        """Raises FaultNeverFired, naming the faults that no connection has met."""
        idle = [fault for fault, fired in self._fired.items() if not fired]
        if idle:
            raise FaultNeverFired(", ".join(idle))

    def close(self) -> None:
        """End it; harmless when repeated. Does not ask whether the faults fired."""
        if self._thread.is_alive():
            self._run(self._stop())
            self._run(self._cancel_tasks())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if error is None:
            self.assert_fired()

    def _run(self, action: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(action, self._loop).result(_CALL_LIMIT_S)

    async def _start(self) -> None:
        self._hearing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _deafen(self) -> None:
        self._fired.setdefault("deafen", False)
        self._hearing.clear()

    async def _order_cut(self, n_bytes: int, towards: Towards) -> None:
        self._fired[f"cut_after towards {towards}"] = False
        self._cut_at[towards] = self._passed[towards] + n_bytes

    async def _cut(self) -> int:
        """Reset all connections; how many sockets that were."""
        writers = [writer for writer in self._writers if not writer.is_closing()]
        for writer in writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        return len(writers)

    async def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._remember_task()
        self._writers.add(writer)
        try:
            await self._wait_until_hearing()
            with suppress(OSError):  # the server behind is away: so is the proxy, to its clients
                await self._join(reader, writer)
        except asyncio.CancelledError:
            pass  # only `close` cancels; asyncio would report what is a plain end here
        finally:
            self._forget(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(*self._upstream)
        self._writers.add(back_writer)
        try:
            await asyncio.gather(
                self._pump(reader, back_writer, Towards.SERVER),
                self._pump(back_reader, writer, Towards.CLIENT),
            )
        finally:
            self._forget(back_writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, towards: Towards
    ) -> None:
        while data := await reader.read(_PIECE):
            await self._wait_until_hearing()
            allowed = self._cut_at.get(towards, self._passed[towards] + len(data) + 1)
            data = data[: max(0, allowed - self._passed[towards])]
            writer.write(data)
            await writer.drain()
            self._passed[towards] += len(data)
            if self._passed[towards] == allowed:
                await self._fire_cut(towards)
                return
        if not writer.is_closing():
            writer.write_eof()

    async def _fire_cut(self, towards: Towards) -> None:
        self._cut_at.pop(towards, None)
        if await self._cut():
            self._fired[f"cut_after towards {towards}"] = True

    async def _wait_until_hearing(self) -> None:
        if not self._hearing.is_set():
            self._fired["deafen"] = True
            await self._hearing.wait()

    def _remember_task(self) -> None:
        if task := asyncio.current_task():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _forget(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.close()


@pytest.fixture
def open_proxy() -> Iterator[OpenProxy]:
    """`open_proxy(host, port)`: a proxy that is closed, and asked for its faults, at the end."""
    with ExitStack() as at_the_end:
        yield lambda host, port: at_the_end.enter_context(TcpProxy(host, port))
