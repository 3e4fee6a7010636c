"""Which schedules a settings file asks for."""

from datetime import timedelta
from typing import Any

from functions.timer_dispatch import schedules_digest, wishes
from shared.settings import Settings

OFF = dict.fromkeys(
    [
        "verify",
        "drill_quick",
        "drill_extended",
        "drill_simulation",
        "drill_disaster",
        "expire",
        "audit",
    ],
    False,
)


def settings(*clusters: dict[str, Any], **more: Any) -> Settings:
    directory = {"type": "directory", "path": "/x"}
    return Settings.model_validate({"repository": directory, "cluster": clusters, **more})


def asked(made: Settings) -> list[tuple[str, str, str]]:
    return [(one.cluster, one.kind.value, one.cron) for one in wishes(made)]


def test_each_cluster_has_its_schedule_and_one_may_have_none() -> None:
    made = settings(
        {"name": "a", "dsn": "", "schedule": {**OFF, "full": "0 1 * * *", "incremental": False}},
        {"name": "b", "dsn": "", "schedule": {**OFF, "full": False, "incremental": False}},
        {"name": "c", "dsn": "", "schedule": OFF},
    )

    assert asked(made) == [
        ("a", "full", "0 1 * * *"),
        ("c", "full", "0 3 * * 0"),
        ("c", "incremental", "0 2 * * *"),
    ]


def test_the_defaults_ask_for_all_but_maintenance_which_needs_a_login() -> None:
    plain = settings({"name": "a", "dsn": ""})
    kept = settings({"name": "a", "dsn": "", "maintenance": {"dsn": "host=a user=b"}})
    assert {kind for _, kind, _ in asked(kept)} - {kind for _, kind, _ in asked(plain)} == {
        "maintenance"
    }
    assert len(asked(plain)) == 9


def test_a_fleet_is_spread() -> None:
    clusters = [{"name": f"c{number}", "dsn": ""} for number in range(20)]
    made = settings(*clusters, fleet={"spread_minutes": 60})
    delays = {one.delay for one in wishes(made) if one.kind == "full"}
    assert len(delays) > 10
    assert max(delays) < timedelta(hours=1)


def test_the_digest_changes_with_whatever_changes_a_wish_and_with_nothing_else() -> None:
    first, second = {"name": "a", "dsn": ""}, {"name": "b", "dsn": ""}
    plain = schedules_digest(settings(first, second))
    assert schedules_digest(settings(second, first)) == plain
    assert schedules_digest(settings(first, {**second, "dsn": "host=x"})) == plain
    others = [
        settings(first),
        settings(first, {**second, "schedule": {"full": "0 4 * * 0"}}),
        settings(first, {**second, "maintenance": {"dsn": "host=x"}}),
        settings(first, second, fleet={"spread_minutes": 5}),
    ]
    assert len({plain, *map(schedules_digest, others)}) == 5
