"""What PostgreSQL is told of a target: at the end of the backup, if it can see that, or beyond."""

import pytest

from shared.domain.backup import BackupSource
from shared.domain.lsn import Lsn
from shared.domain.recovery_target import RecoveryTarget, TargetAction, ToImmediate, ToLatest
from shared.repository.documents import BackupDocument
from tests.harness.signed_repository import backup_document
from worker.commands.recovery import (
    RecoveryRequest,
    TargetActionImpossible,
    end_of_backup,
    recovery_of,
)
from worker.postgres.recovery_settings import Recovery

SEGMENT = 16 << 20


def document(source: BackupSource, stop: int) -> BackupDocument:
    return backup_document("main").model_copy(update={"source": source, "stop_lsn": Lsn(stop)})


@pytest.mark.parametrize(
    ("source", "stop", "target"),
    [
        (BackupSource.PRIMARY, 3 * SEGMENT + 40, ToImmediate()),
        (BackupSource.PRIMARY, 3 * SEGMENT, ToLatest()),
        (BackupSource.STANDBY, 3 * SEGMENT + 40, ToLatest()),
    ],
    ids=["a record follows", "the last record ends its segment", "a standby writes none"],
)
def test_the_end_of_the_backup_is_a_target_only_where_a_record_follows(
    source: BackupSource, stop: int, target: RecoveryTarget
) -> None:
    assert end_of_backup(document(source, stop)) == target


def test_the_end_of_a_backup_needs_no_archive_and_can_pause_where_a_record_follows() -> None:
    request = RecoveryRequest(action=TargetAction.PAUSE)
    told = recovery_of(request, None, document(BackupSource.PRIMARY, SEGMENT + 40), "fetch %f %p")
    assert told == Recovery(ToImmediate(), action=TargetAction.PAUSE)
    with pytest.raises(TargetActionImpossible, match="does not pause"):
        recovery_of(request, None, document(BackupSource.STANDBY, SEGMENT + 40), None)
