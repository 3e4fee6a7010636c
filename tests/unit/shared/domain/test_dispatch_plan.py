"""What starts, what waits and what passes: limits hold, nothing is lost, and the order is fair."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.agenda import AgendaEntry
from shared.domain.cluster import ClusterName, cluster_name
from shared.domain.dispatch_plan import (
    ActiveJob,
    DispatchPlan,
    DueTick,
    Limits,
    Passed,
    kind_of,
    plan_dispatch,
    verb_of,
)
from shared.domain.job import JobVerb
from shared.domain.schedule import ScheduleKind, Tick

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
A, B, C = (cluster_name(name) for name in "abc")
BACKUPS = {JobVerb.BACKUP, JobVerb.MAINTENANCE}


def due(cluster: ClusterName, kind: ScheduleKind, minutes_ago: int = 0) -> DueTick:
    at = NOW - timedelta(minutes=minutes_ago)
    entry = AgendaEntry(cluster, kind, "* * * * *", timedelta(), at)
    return DueTick(entry, Tick(cluster, kind, at))


def limits(per_host: int = 1, per_account: int = 16, *, one_host: bool = False) -> Limits:
    return Limits(per_host, per_account, lambda cluster: "host" if one_host else cluster)


def started(plan: DispatchPlan) -> list[tuple[str, str]]:
    return [(one.tick.cluster, one.tick.kind.value) for one in plan.start]


def test_a_full_of_the_same_time_stands_for_the_incremental() -> None:
    plan = plan_dispatch(
        [
            due(A, ScheduleKind.INCREMENTAL),
            due(A, ScheduleKind.FULL),
            due(B, ScheduleKind.INCREMENTAL),
        ],
        [],
        limits(),
    )
    assert started(plan) == [("a", "full"), ("b", "incremental")]
    assert [(one.tick.kind.value, why) for one, why in plan.passed] == [
        ("incremental", Passed.FULL_INSTEAD)
    ]


def test_s03_what_still_runs_is_not_started_again() -> None:
    active = [ActiveJob(A, JobVerb.BACKUP, ScheduleKind.FULL)]
    plan = plan_dispatch([due(A, ScheduleKind.FULL)], active, limits())
    assert plan.start == []
    assert [why for _, why in plan.passed] == [Passed.STILL_RUNNING]


def test_another_kind_of_the_same_verb_waits_for_it_and_is_not_lost() -> None:
    active = [
        ActiveJob(A, JobVerb.BACKUP, ScheduleKind.INCREMENTAL),
        ActiveJob(A, JobVerb.DRILL, ScheduleKind.DRILL_QUICK),
        ActiveJob(B, JobVerb.BACKUP, ScheduleKind.FULL),
        ActiveJob(C, JobVerb.BACKUP),
    ]
    wanted = [
        due(A, ScheduleKind.FULL),
        due(A, ScheduleKind.DRILL_EXTENDED),
        due(B, ScheduleKind.INCREMENTAL),
        due(C, ScheduleKind.FULL),
    ]
    plan = plan_dispatch(wanted, active, limits())
    assert plan.start == []
    assert [why for _, why in plan.passed] == [Passed.FULL_INSTEAD]
    assert {one.tick.kind for one in plan.waiting} == {
        ScheduleKind.FULL,
        ScheduleKind.DRILL_EXTENDED,
    }


def test_a_job_is_of_the_kind_that_its_message_says() -> None:
    assert kind_of(JobVerb.BACKUP, "incremental") is ScheduleKind.INCREMENTAL
    assert kind_of(JobVerb.BACKUP) is None
    assert kind_of(JobVerb.DRILL, level="disaster") is ScheduleKind.DRILL_DISASTER
    assert kind_of(JobVerb.DRILL) is ScheduleKind.DRILL_QUICK
    assert kind_of(JobVerb.RESTORE) is None
    assert kind_of(JobVerb.AUDIT) is ScheduleKind.AUDIT
    assert kind_of(JobVerb.VERIFY, whole_chain=True) is ScheduleKind.VERIFY
    assert kind_of(JobVerb.VERIFY) is None


def test_a_new_backups_verification_delays_that_of_the_chain_and_is_none() -> None:
    plan = plan_dispatch([due(A, ScheduleKind.VERIFY)], [ActiveJob(A, JobVerb.VERIFY)], limits())
    assert (plan.start, plan.passed, len(plan.waiting)) == ([], [], 1)


def test_whoever_waits_for_longest_is_first_although_another_tick_has_come_meanwhile() -> None:
    waited, fresh = due(B, ScheduleKind.FULL, 60), due(A, ScheduleKind.FULL)
    again = DueTick(waited.entry, Tick(B, ScheduleKind.FULL, NOW))
    assert started(plan_dispatch([fresh, again], [], limits(per_account=1))) == [("b", "full")]


def test_a_drill_runs_beside_a_backup_and_expiry_waits_for_it() -> None:
    active = [ActiveJob(A, JobVerb.BACKUP)]
    wanted = [due(A, ScheduleKind.EXPIRE), due(A, ScheduleKind.DRILL_QUICK)]
    plan = plan_dispatch(wanted, active, limits())
    assert started(plan) == [("a", "drill_quick")]
    assert [one.tick.kind for one in plan.waiting] == [ScheduleKind.EXPIRE]


def test_nothing_expires_where_azure_would_delete_a_parent() -> None:
    wanted = [due(A, ScheduleKind.EXPIRE), due(B, ScheduleKind.EXPIRE)]
    plan = plan_dispatch(wanted, [], limits(), guarded={A})
    assert started(plan) == [("b", "expire")]
    assert [why for _, why in plan.passed] == [Passed.GUARDED]


def test_nothing_expires_while_somebody_reads_or_is_about_to() -> None:
    kinds = [due(cluster, ScheduleKind.EXPIRE) for cluster in (A, B, C)]
    active = [
        ActiveJob(A, JobVerb.RESTORE),
        ActiveJob(B, JobVerb.VERIFY),  # of a new backup
    ]
    plan = plan_dispatch(kinds, active, limits(), awaited={C})
    assert started(plan) == [("b", "expire")]
    assert [(one.tick.cluster, why) for one, why in plan.passed] == [
        (A, Passed.BEING_READ),
        (C, Passed.BEING_READ),
    ]


def test_a_host_and_an_account_have_room_for_so_many() -> None:
    wanted = [due(cluster, ScheduleKind.FULL) for cluster in (A, B, C)]
    crowded = plan_dispatch(wanted, [], limits(per_host=2, one_host=True))
    assert (started(crowded), len(crowded.waiting)) == ([("a", "full"), ("b", "full")], 1)
    small = plan_dispatch(wanted, [ActiveJob(C, JobVerb.DRILL)], limits(per_account=2))
    assert (started(small), len(small.waiting)) == ([("a", "full")], 2)


def test_s11_a_backlog_is_worked_off_by_what_matters_and_then_by_age() -> None:
    wanted = [
        due(A, ScheduleKind.AUDIT, 900),
        due(A, ScheduleKind.FULL, 5),
        due(B, ScheduleKind.FULL, 50),
        due(A, ScheduleKind.VERIFY),
        due(C, ScheduleKind.DRILL_DISASTER, 500),
    ]
    assert started(plan_dispatch(wanted, [], limits())) == [
        ("a", "verify"),
        ("b", "full"),
        ("a", "full"),
        ("c", "drill_disaster"),
        ("a", "audit"),
    ]


CLUSTERS = st.sampled_from([cluster_name(f"c{number}") for number in range(8)])


@given(
    st.lists(st.tuples(CLUSTERS, st.sampled_from(ScheduleKind)), unique=True, max_size=40),
    st.lists(st.builds(ActiveJob, CLUSTERS, st.sampled_from(JobVerb)), max_size=12),
    st.integers(1, 3),
    st.integers(1, 10),
)
def test_every_tick_is_in_one_place_and_no_limit_is_passed(
    wanted: list[tuple[ClusterName, ScheduleKind]],
    active: list[ActiveJob],
    per_host: int,
    per_account: int,
) -> None:
    ticks = [due(cluster, kind) for cluster, kind in wanted]
    room = Limits(per_host, per_account, lambda cluster: f"host {int(cluster[1:]) % 3}")

    plan = plan_dispatch(ticks, active, room)

    everywhere = [*plan.start, *(one for one, _ in plan.passed), *plan.waiting]
    assert Counter(one.tick for one in everywhere) == Counter(one.tick for one in ticks)
    new = [(one.tick.cluster, verb_of(one.tick.kind)) for one in plan.start]
    assert len(set(new)) == len(new)
    assert not set(new) & {(job.cluster, job.verb) for job in active}
    hosts = Counter(room.place_of(job.cluster) for job in active if job.verb in BACKUPS)
    for cluster, verb in new:
        if verb in BACKUPS:
            hosts[room.place_of(cluster)] += 1
            assert hosts[room.place_of(cluster)] <= per_host
    using = sum(job.verb is not JobVerb.MAINTENANCE for job in active)
    more = sum(verb is not JobVerb.MAINTENANCE for _, verb in new)
    assert more == 0 or using + more <= per_account
