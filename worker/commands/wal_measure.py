"""What a receiver tells those who watch it: its lag, how long WAL waits to be durable, its life."""

from collections.abc import Iterable

from shared.domain.lsn import Lsn
from shared.telemetry.metric_names import WAL_ACKNOWLEDGE, WAL_RECEIVE_LAG
from worker.commands.services import Services
from worker.commands.wal_lag import WalLag
from worker.commands.wal_uploads import Durable


class WalMeasure:
    """Of one cluster, whatever the session. Not thread-safe."""

    def __init__(self, services: Services, cluster: str) -> None:
        self._alive = services.alive
        self._telemetry = services.telemetry
        self._clock = services.clocks.monotonic
        self._cluster = cluster
        self._lag = WalLag(self._clock())

    def begin(self) -> None:
        """Positions of another connection or timeline follow."""
        self._lag.begin()

    def hear(self, server_end: Lsn) -> None:
        self._lag.hear(server_end, self._clock())

    def settle(self, durable: Lsn, stored: Iterable[Durable]) -> None:
        """The connection lives, the archive reaches `durable`; `stored` is what was added now."""
        now = self._clock()
        self._lag.settle(durable, now)
        for since in (one.portion.waiting_since for one in stored):
            if since is not None:
                self._telemetry.record(WAL_ACKNOWLEDGE, now - since, cluster=self._cluster)

    def tell(self) -> None:
        """The lag, as it is now; and that the receiver lives, for this comes every few seconds."""
        self._alive()
        seconds = self._lag.seconds(self._clock())
        self._telemetry.record(WAL_RECEIVE_LAG, seconds, cluster=self._cluster)
