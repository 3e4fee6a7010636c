"""What the verbs work with: ports and sources of time and chance, put together in worker.wiring."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.jobs.lease import LeaseStore
from shared.repository.blob_store import BlobStore
from shared.repository.replication_status import ReplicationStatus
from shared.repository.signatures import PinnedKeys, Signer
from shared.settings import Settings
from shared.telemetry.meters import NO_TELEMETRY, Telemetry
from worker.keys.key_ring import KeyRing


class Progress(Protocol):
    """Called often, from any thread; must be quick and must not raise."""

    def phase(self, name: str) -> None:
        """A new phase begins."""
        ...

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        """So much of the phase is done; `total_bytes` 0 means nobody knows."""
        ...


@dataclass(frozen=True, slots=True)
class Clocks:
    """`now` is UTC for what is written down; `monotonic` is seconds for what is measured."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The repository is read at its secondary, as of `last_sync_time` if that is known; signed
    reports go to `reports`.
    """

    last_sync_time: datetime | None
    reports: BlobStore


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a verb may use. `signer` is None where nothing may be signed.

    `secondary` is the read-only copy in the second region, if there is one, and `replication` says
    how far it is. `elsewhere` is there when `store` is that copy.
    """

    settings: Settings
    store: BlobStore
    leases: LeaseStore
    pinned: PinnedKeys
    key_ring: KeyRing
    signer: Signer | None
    clocks: Clocks
    random: Callable[[int], bytes]
    host: str
    progress: Progress
    # Called in the loop of a process that serves: a sign of life for whoever watches it.
    alive: Callable[[], None] = lambda: None
    secondary: BlobStore | None = None
    replication: ReplicationStatus | None = None
    elsewhere: Elsewhere | None = None
    telemetry: Telemetry = NO_TELEMETRY

    @property
    def reports(self) -> BlobStore:
        """Where signed reports are written, and looked for by their id."""
        return self.store if self.elsewhere is None else self.elsewhere.reports


class Stopwatch:
    """Milliseconds per phase, in the order in which they ran; phases of one name add up."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._began = self._lap = monotonic()
        self.phases: dict[str, int] = {}

    def lap(self, name: str) -> None:
        """The time since the last lap was spent on `name`."""
        now = self._monotonic()
        self.phases[name] = self.phases.get(name, 0) + round((now - self._lap) * 1000)
        self._lap = now

    @property
    def total_ms(self) -> int:
        return round((self._monotonic() - self._began) * 1000)
