"""What a drill to an instant checks beyond the backup: is the copy of that instant, and whole?"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from shared.domain.drill import Check, CheckOutcome
from shared.domain.recovery_plan import RecoveryPlan
from shared.domain.recovery_target import ToTime
from shared.errors import PostgresCommandFailed
from shared.settings import ClusterSettings
from worker.commands.recovery import PlannedRecovery
from worker.commands.replay import Replayed
from worker.postgres.heartbeat import Heartbeats, read_heartbeats
from worker.postgres.instance import Instance
from worker.postgres.table_facts import TableName

# After a crash or promotion a sequence goes on where it was logged: up to SEQ_LOG_VALS (sequence.c)
# further. An insert that was rolled back leaves a hole, too.
_NUMBERS_THAT_NOBODY_GOT: Final = 32

ROW_COUNTS_SKIPPED: Final = Check(
    "row_counts", CheckOutcome.SKIPPED, "the rows were counted at the backup's end, before it", 0.0
)


def check_target(plan: RecoveryPlan, end: Replayed) -> Check:
    """Whether the replay ended where it was asked to, by the last transaction that it replayed."""
    reached, target = end.last_commit, plan.target
    said = f"at {end.lsn}, last transaction at {_written(reached)}"
    if isinstance(target, ToTime):
        late = reached is not None and reached > target.time
        return _judged("target_reached", f"{said}; asked for {target}", good=not late)
    known = plan.window.last_commit
    early = known is not None and (reached is None or reached < known)
    return _judged(
        "target_reached", f"{said}; the archive's is at {_written(known)}", good=not early
    )


def check_heartbeat(
    instance: Instance,
    cluster: ClusterSettings,
    planned: PlannedRecovery,
    clock: Callable[[], float],
    *,
    statement_timeout_s: int,
) -> tuple[Check, datetime | None]:
    """The newest row, and whether any is missing of those that came by replay."""
    began = clock()
    table = TableName.parse(cluster.heartbeat or "", default_database=cluster.database)
    since = planned.backup.document.finished_at
    try:
        found = read_heartbeats(instance, table, since, statement_timeout_s=statement_timeout_s)
    except PostgresCommandFailed as error:
        found_nothing = Check("heartbeat", CheckOutcome.INCONCLUSIVE, error.fact, clock() - began)
        return found_nothing, None
    if found is None or found.newest is None:
        lacks = "has no heartbeat" if found else "lacks the heartbeat table"
        return Check("heartbeat", CheckOutcome.INCONCLUSIVE, f"the copy {lacks}", 0.0), None
    return judge_heartbeats(found, planned.plan, clock() - began), found.newest


def judge_heartbeats(found: Heartbeats, plan: RecoveryPlan, seconds: float) -> Check:
    detail = f"newest at {_written(found.newest)}, {found.recent} since the backup"
    good = (found.missing or 0) <= _NUMBERS_THAT_NOBODY_GOT
    if found.missing:
        detail += f", {found.missing} numbers missing between two of them"
    if isinstance(plan.target, ToTime) and found.newest and found.newest > plan.target.time:
        good, detail = False, f"{detail}: that is after {plan.target}"
    return _judged("heartbeat", detail, good=good, seconds=seconds)


def _judged(name: str, detail: str, *, good: bool, seconds: float = 0.0) -> Check:
    outcome = CheckOutcome.PASSED if good else CheckOutcome.FAILED
    return Check(name, outcome, detail, round(seconds, 3))


def _written(time: datetime | None) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%S.%fZ}" if time else "no known time"
