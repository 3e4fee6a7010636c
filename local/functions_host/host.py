"""The dispatcher: one thread per kind of trigger over one bounded pool, and a graceful stop."""

import logging
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from local.functions_host.app_settings import AppSettings, read_host_json
from local.functions_host.blob_events import BlobTriggers
from local.functions_host.http_routes import HttpTriggers
from local.functions_host.indexing import HostedFunction, index_app
from local.functions_host.queue_messages import QueueTrigger, run_queues
from local.functions_host.timers import TimerTriggers

POOL_THREADS = 16
ACCEPT_S = 0.1  # how soon the HTTP thread sees that it shall end


@dataclass(frozen=True, slots=True)
class HostAddress:
    """Where the HTTP functions answer, and the key that opens those of level FUNCTION."""

    url: str
    key: str


def host_key(state: Path) -> str:
    """The key of this host, made at its first start; mode 0600."""
    path = state / "host_key"
    if not path.exists():
        path.touch(0o600)
        path.write_text(secrets.token_urlsafe(32), "ascii")
    return path.read_text("ascii")


@contextmanager
def running_host(
    app: Path, settings: AppSettings, state: Path, port: int = 0
) -> Iterator[HostAddress]:
    """Host the app in `app` until the block ends; runs in progress are waited for.

    `state` keeps receipts, timer status and the key over restarts. Raises AppRefused.
    """
    state.mkdir(parents=True, exist_ok=True)
    for talkative in ("azure", "werkzeug"):  # they log each request
        logging.getLogger(talkative).setLevel(logging.WARNING)
    stop, key, host = threading.Event(), host_key(state), read_host_json(app / "host.json")
    functions = index_app(app)
    with ThreadPoolExecutor(POOL_THREADS, "function") as pool:
        timers = TimerTriggers(_of(functions, "timerTrigger"), settings, state, pool, _utc_now)
        blobs = BlobTriggers(_of(functions, "blobTrigger"), settings, state, pool)
        queues = [
            QueueTrigger(item, settings, host, pool) for item in _of(functions, "queueTrigger")
        ]
        http = HttpTriggers(_of(functions, "httpTrigger"), settings, host.route_prefix, key, pool)
        server = http.serve("127.0.0.1", port)
        threads = [
            threading.Thread(target=timers.run, args=[stop], name="timers"),
            threading.Thread(target=blobs.run, args=[stop], name="blobs"),
            threading.Thread(target=run_queues, args=[queues, stop], name="queues"),
            threading.Thread(target=server.serve_forever, args=[ACCEPT_S], name="http"),
        ]
        for thread in threads:
            thread.start()
        try:
            yield HostAddress(f"http://127.0.0.1:{server.server_port}", key)
        finally:
            stop.set()
            server.shutdown()
            for thread in threads:
                thread.join()
            server.server_close()


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _of(functions: list[HostedFunction], kind: str) -> list[HostedFunction]:
    return [function for function in functions if function.kind == kind]
