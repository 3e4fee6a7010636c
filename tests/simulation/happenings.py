"""What happens to a fleet or to one of its clusters: when it begins, and when it ends."""

from dataclasses import dataclass, field
from datetime import timedelta

from tests.simulation.account import CARELESS, Account
from tests.simulation.app import FunctionApp
from tests.simulation.engine import days, hours, minutes
from tests.simulation.faults import Faults, Trouble
from tests.simulation.servers import Server
from tests.simulation.world import World


@dataclass
class Happenings:
    """Each strikes at random, as often as the world's faults say, and passes."""

    world: World
    app: FunctionApp
    account: Account
    trouble: Trouble = field(init=False)

    def __post_init__(self) -> None:
        world = self.world
        self.trouble = Trouble(world.engine, world.random, world.weather)

    def begin(self) -> None:
        faults, trouble, clusters = self.world.faults, self.trouble, len(self.world.servers)
        trouble.outages(faults)
        trouble.now_and_then(faults.host_clock_days, minutes(30), hours(5), self._host_clock)
        for every, shortest, longest, begin in (
            (faults.wal_down_days, minutes(10), hours(12), self._wal_down),
            (faults.wal_lost_days, hours(5), hours(9), self._wal_lost),
            (faults.server_down_days, hours(1), days(4), self._server_down),
        ):
            trouble.now_and_then(every / clusters, shortest, longest, begin)
        trouble.now_and_then(faults.replication_days, minutes(20), hours(9), self._stall)
        trouble.now_and_then(faults.lifecycle_days, hours(10), days(2), self._careless_rule)

    def end(self) -> None:
        """Nothing goes wrong any more, and what was wrong is over."""
        self.world.faults = self.app.faults = Faults.none()
        self.trouble.calm = True
        self.world.weather.down_until.clear()
        self.world.weather.jump(timedelta())
        self.world.host_ahead = timedelta()
        self.account.put()
        self.account.stalled_since = None
        for server in self.world.servers.values():
            server.writer_down_until = server.down_until = None
            server.begun = self.world.engine.now
        self.app.wake()

    def _host_clock(self, span: timedelta) -> None:
        self.world.weather.fire("the clock of the workers' host was wrong")
        self.world.host_ahead = hours(self.world.random.uniform(-3, 3))
        self.world.engine.after(span, self._host_clock_right)

    def _host_clock_right(self) -> None:
        self.world.host_ahead = timedelta()

    def _wal_down(self, span: timedelta) -> None:
        self.world.weather.fire("a wal writer was down")
        self._any_server().writer_down_until = self.world.engine.now + span

    def _wal_lost(self, span: timedelta) -> None:
        """The writer is away for so long that the server drops its log."""
        server = self._any_server()
        self._wal_down_of(server, span)
        self.world.engine.after(span, lambda: self._drop(server))

    def _wal_down_of(self, server: Server, span: timedelta) -> None:
        server.writer_down_until = self.world.engine.now + span + minutes(1)

    def _drop(self, server: Server) -> None:
        server.advance(self.world.engine.now)
        if server.waiting:
            self.world.weather.fire("wal was lost")
            server.lose(self.world.engine.now, self.app.tell_wal)

    def _server_down(self, span: timedelta) -> None:
        self.world.weather.fire("a server went down")
        server = self._any_server()
        server.advance(self.world.engine.now)
        server.down_until = self.world.engine.now + span
        self.world.engine.after(span, lambda: self._server_up(server))

    def _server_up(self, server: Server) -> None:
        if server.is_up(self.world.engine.now):
            server.begun = self.world.engine.now

    def _stall(self, span: timedelta) -> None:
        self.world.weather.fire("replication stalled")
        self.account.stalled_since = self.account.stalled_since or self.world.engine.now
        self.world.engine.after(span, self._unstall)

    def _unstall(self) -> None:
        self.account.stalled_since = None

    def _careless_rule(self, span: timedelta) -> None:
        self.world.weather.fire("a lifecycle rule was planted")
        self.account.put(CARELESS)
        self.world.engine.after(span, self._no_rule)

    def _no_rule(self) -> None:
        self.account.put()

    def _any_server(self) -> Server:
        return self.world.random.choice(list(self.world.servers.values()))
