"""The options that say where a recovery ends, read as one request."""

from dataclasses import dataclass

from shared.domain.lsn import Lsn
from shared.domain.recovery_target import (
    RecoveryTarget,
    RecoveryTargetInvalid,
    TargetAction,
    ToImmediate,
    ToLatest,
    ToLsn,
    ToName,
    ToTime,
    ToXid,
    parse_point,
    parse_time,
    parse_xid,
)
from worker.commands.recovery import RecoveryRequest


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """As the command line gives them: None and False are options that were left out."""

    to_time: str | None = None
    to_lsn: str | None = None
    to_xid: str | None = None
    to_name: str | None = None
    to_latest: bool = False
    immediate: bool = False

    def request(
        self,
        *,
        exclusive: bool = False,
        timeline: int | None = None,
        action: TargetAction = TargetAction.PROMOTE,
    ) -> RecoveryRequest:
        """Raises RecoveryTargetInvalid, LsnInvalid; no target at all means the backup's end."""
        given = [
            option
            for option, value in (
                ("--to-time", self.to_time),
                ("--to-lsn", self.to_lsn),
                ("--to-xid", self.to_xid),
                ("--to-name", self.to_name),
                ("--to-latest", self.to_latest or None),
                ("--immediate", self.immediate or None),
            )
            if value is not None
        ]
        if len(given) > 1:
            raise RecoveryTargetInvalid(f"{' and '.join(given)} name more than one target")
        request = RecoveryRequest(self._target(inclusive=not exclusive), timeline, action)
        request.check()
        return request

    def _target(self, *, inclusive: bool) -> RecoveryTarget:
        if self.to_time is not None:
            return ToTime(parse_time(self.to_time), inclusive)
        if self.to_lsn is not None:
            return ToLsn(Lsn.parse(self.to_lsn), inclusive)
        if self.to_xid is not None:
            return ToXid(parse_xid(self.to_xid), inclusive)
        if not inclusive:
            raise RecoveryTargetInvalid("--exclusive needs a time, an LSN or a transaction")
        if self.to_name is not None:
            return ToName(parse_point(self.to_name))
        return ToLatest() if self.to_latest else ToImmediate()
