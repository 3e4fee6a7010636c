"""Which schedules a settings file asks for."""

from typing import Any

from functions.timer_dispatch import schedules
from shared.domain.backup import BackupKind
from shared.domain.cluster import ClusterName
from shared.domain.schedule import BackupSchedule
from shared.settings import Settings


def settings(*clusters: dict[str, Any]) -> Settings:
    directory = {"type": "directory", "path": "/x"}
    return Settings.model_validate({"repository": directory, "cluster": clusters})


def test_each_cluster_has_its_schedule_and_one_may_have_none() -> None:
    made = settings(
        {"name": "a", "dsn": "", "schedule": {"full": "0 1 * * *", "incremental": False}},
        {"name": "b", "dsn": "", "schedule": {"full": False, "incremental": False}},
        {"name": "c", "dsn": ""},
    )

    assert list(schedules(made)) == [
        BackupSchedule(ClusterName("a"), BackupKind.FULL, "0 1 * * *"),
        BackupSchedule(ClusterName("c"), BackupKind.FULL, "0 3 * * 0"),
        BackupSchedule(ClusterName("c"), BackupKind.INCREMENTAL, "0 2 * * *"),
    ]
