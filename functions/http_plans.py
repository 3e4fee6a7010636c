"""POST api/plans: what a recovery to a target would begin with and read, or why there is none.

A post, because a target is asked about; nothing is changed, so every role may.
"""

from datetime import datetime

import azure.functions as func

from functions.http_protocol import Body
from functions.job_requests import protected_cluster
from functions.operations import Call, Operation, serve
from functions.recovery_plans import Weighed, weigh
from functions.wiring import services
from shared.domain.field_types import Cluster, Label, LsnText, RestoreGoalText
from shared.domain.recovery_plan import RecoveryPlan, RecoveryWindow

blueprint = func.Blueprint()


class PlanAsked(Body):
    """`to` is `latest`, `immediate` or an instant with its offset."""

    cluster: Cluster
    label: Label | None = None
    to: RestoreGoalText = "latest"


class Window(Body):
    """On the way to `timeline` every position from `start` to `end` can be reached."""

    timeline: int
    start: LsnText
    started_at: datetime
    end: LsnText
    last_commit: datetime | None
    backups: tuple[str, ...]
    broken: bool


class ChosenBackup(Body):
    """Bytes are those of the whole chain: stored is what is fetched, plain what is written."""

    label: str
    finished_at: datetime
    suspect: bool
    stored_bytes: int
    plain_bytes: int


class Plan(Body):
    """`wal_bytes` is replayed at most, `wal_stored_bytes` fetched for it."""

    backup: ChosenBackup
    timeline: int
    segments: int
    wal_bytes: int
    wal_stored_bytes: int
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    window: Window


class WeighedPlan(Body):
    """`plan` null: out of reach, as `refused` tells, and `nearest` what is reached, as options of
    `pgkeep restore`. `unweighed_timelines` can be judged only where their histories can be read.
    """

    cluster: str
    to: str
    reachable: bool
    plan: Plan | None
    refused: str | None
    nearest: str | None
    windows: tuple[Window, ...]
    unweighed_timelines: tuple[int, ...]


def show_plan(call: Call[PlanAsked]) -> WeighedPlan:
    asked = call.asked
    cluster = protected_cluster(call.services, asked.cluster)
    return _shown(cluster, asked.to, weigh(call.services, cluster, asked.label, asked.to))


def _shown(cluster: str, to: str, weighed: Weighed) -> WeighedPlan:
    return WeighedPlan(
        cluster=cluster,
        to=to,
        reachable=weighed.plan is not None,
        plan=_plan(weighed.plan) if weighed.plan else None,
        refused=weighed.refused,
        nearest=weighed.nearest,
        windows=tuple(map(_window, weighed.windows)),
        unweighed_timelines=weighed.unweighed_timelines,
    )


def _plan(plan: RecoveryPlan) -> Plan:
    backup = plan.backup
    return Plan(
        backup=ChosenBackup(
            label=backup.label,
            finished_at=backup.finished_at,
            suspect=backup.suspect,
            stored_bytes=backup.stored_bytes,
            plain_bytes=backup.plain_bytes,
        ),
        timeline=plan.timeline,
        segments=len(plan.segments),
        wal_bytes=plan.wal_bytes,
        wal_stored_bytes=plan.wal_stored_bytes,
        reasons=plan.reasons,
        warnings=plan.warnings,
        window=_window(plan.window),
    )


def _window(window: RecoveryWindow) -> Window:
    return Window(
        timeline=window.timeline,
        start=window.start,
        started_at=window.started_at,
        end=window.end,
        last_commit=window.last_commit,
        backups=window.backups,
        broken=window.broken,
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="plans",
        summary="Plan a recovery, and change nothing",
        handle=show_plan,
        asked=PlanAsked,
        answer=WeighedPlan,
        statuses=(404, 409),
        weight=20,  # the archive may be listed in a hundred pages
    ),
)


@blueprint.route("plans", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
def http_plans(req: func.HttpRequest) -> func.HttpResponse:
    return serve(OPERATIONS, services, req)
