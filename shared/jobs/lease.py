"""The port to leases: one holder per name, each with a token higher than all before it.

The token fences: what a holder writes carries it, so that a holder that was thought dead and wakes
up late can be told from its successor. Whoever commits asks `check` just before; when the lease
could not be renewed in time, that raises, even if nobody else has taken it yet.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from threading import Event, Thread
from typing import Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from shared.errors import Corrupt, LeaseHeld, LeaseLost, PgkeepError, Unavailable

# Azure allows 15 to 60 s. The longest gives the most time to outlast a storage failover.
DEFAULT_TTL_S = 60
# A renewal may fail twice in a row before the lease expires.
_RENEWALS_PER_TTL = 3


class LeaseRecord(BaseModel):
    """What stands in the lease's blob or file: the newest holder, also after it has gone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: int = Field(ge=1)
    holder: str
    acquired_at: AwareDatetime

    @classmethod
    def parse(cls, name: str, data: bytes) -> "LeaseRecord | None":
        """None for a lease that nobody has ever held. Raises Corrupt."""
        if not data:
            return None
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            raise Corrupt(
                f"lease {name} cannot be read: {fault['msg'].lower()}",
                hint="Look at who writes to the container; empty the blob when no job runs.",
            ) from None


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that was granted. `handle` is the adapter's own: a lease id, a file descriptor."""

    name: str
    token: int
    holder: str
    acquired_at: datetime
    ttl_s: int
    handle: str


class LeaseStore(Protocol):
    """Four operations; all are safe to call from several threads at once."""

    def acquire(self, name: str, holder: str, ttl_s: int) -> Lease:
        """`name` is a path in the store, as in locks/prod/backup.json; 15 ≤ `ttl_s` ≤ 60.

        Raises LeaseHeld, naming the holder and since when.
        """
        ...

    def renew(self, lease: Lease) -> None:
        """For another `ttl_s` from now. Raises LeaseLost."""
        ...

    def release(self, lease: Lease) -> None:
        """Idempotent; a lease that is lost stays with whoever has it."""
        ...

    def current(self, name: str) -> LeaseRecord | None:
        """Who holds it now; None when nobody does."""
        ...


class Renewal:
    """A lease in the course of being renewed; `lost` is set as soon as it is known to be gone."""

    def __init__(self, store: LeaseStore, lease: Lease, clock: Callable[[], float]) -> None:
        self.lease = lease
        self.lost = Event()
        self._store = store
        self._clock = clock
        self._stop = Event()
        self._trouble = ""
        self._renewed_at = clock()

    def check(self) -> None:
        """Ask this just before each commit. Raises LeaseLost."""
        if self._clock() - self._renewed_at >= self.lease.ttl_s:
            self.lost.set()
        if self.lost.is_set():
            lease = self.lease
            fact = f"lease {lease.name} with token {lease.token} of {lease.holder} is lost"
            raise LeaseLost(f"{fact}: {self._trouble}" if self._trouble else fact)

    def renew(self) -> None:
        """Once, now. Storage that does not answer is no loss yet: the time runs on."""
        asked_at = self._clock()  # the store counts from later, never from earlier
        try:
            self._store.renew(self.lease)
        except LeaseLost:
            self.lost.set()
        except PgkeepError as error:
            self._trouble = error.fact
        else:
            self._renewed_at = asked_at
            self._trouble = ""

    def run(self) -> None:
        """What the thread does until it is stopped or the lease is lost."""
        while not self._stop.wait(self.lease.ttl_s / _RENEWALS_PER_TTL):
            self.renew()
            with suppress(LeaseLost):
                self.check()
            if self.lost.is_set():
                return

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def keep_renewing(
    store: LeaseStore, lease: Lease, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Renewal]:
    """Renews now, and each third of `ttl_s` in a thread. Raises LeaseLost at the start only."""
    renewal = Renewal(store, lease, clock)
    renewal.renew()
    renewal.check()
    thread = Thread(target=renewal.run, name=f"renew {lease.name}", daemon=True)
    thread.start()
    try:
        yield renewal
    finally:
        renewal.stop()
        thread.join()


@contextmanager
def hold(
    store: LeaseStore, name: str, holder: str, *, ttl_s: int = DEFAULT_TTL_S
) -> Iterator[Renewal]:
    """Acquire, keep renewing, release. Raises LeaseHeld, LeaseLost."""
    lease = store.acquire(name, holder, ttl_s)
    try:
        with keep_renewing(store, lease) as renewal:
            yield renewal
    finally:
        with suppress(Unavailable):  # then it expires by itself
            store.release(lease)


def held_by(name: str, record: LeaseRecord | None) -> LeaseHeld:
    """The refusal that every adapter gives."""
    if record is None:
        return LeaseHeld(f"lease {name} has just been taken")
    return LeaseHeld(f"lease {name} is held by {record.holder} since {record.acquired_at:%F %TZ}")
