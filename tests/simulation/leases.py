"""Leases in virtual time, with fencing tokens as the real ones have."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count

from shared.errors import LeaseHeld, LeaseLost
from shared.jobs.lease import Lease, LeaseRecord, held_by
from tests.simulation.engine import Engine


@dataclass
class VirtualLeases:
    """See shared.jobs.lease.LeaseStore for the contract."""

    engine: Engine
    _held: dict[str, tuple[Lease, datetime]] = field(default_factory=dict)
    _tokens: Iterator[int] = field(default_factory=lambda: count(1))

    def acquire(self, name: str, holder: str, ttl_s: int) -> Lease:
        if self.current(name) is not None:
            raise self._refusal(name)
        now = self.engine.now
        lease = Lease(name, next(self._tokens), holder, now, ttl_s, holder)
        self._held[name] = (lease, now + timedelta(seconds=ttl_s))
        return lease

    def renew(self, lease: Lease) -> None:
        """As Azure does: also after its time, if nobody else has taken it."""
        if self._newest(lease.name) != lease:
            raise LeaseLost(f"lease {lease.name} with token {lease.token} is lost")
        until = self.engine.now + timedelta(seconds=lease.ttl_s)
        self._held[lease.name] = (lease, until)

    def release(self, lease: Lease) -> None:
        if self._newest(lease.name) == lease:
            self._held[lease.name] = (lease, self.engine.now)

    def current(self, name: str) -> LeaseRecord | None:
        lease, until = self._held.get(name, (None, self.engine.now))
        if lease is None or until <= self.engine.now:
            return None
        return LeaseRecord(token=lease.token, holder=lease.holder, acquired_at=lease.acquired_at)

    def _newest(self, name: str) -> Lease | None:
        return self._held[name][0] if name in self._held else None

    def _refusal(self, name: str) -> LeaseHeld:
        return held_by(name, self.current(name))
