"""Where a restored copy stops recovering: at the end of the backup, if PostgreSQL can see it."""

import pytest

from shared.domain.backup import BackupSource
from shared.domain.lsn import Lsn
from worker.commands.restore import recovery_target
from worker.postgres.recovery_settings import RecoveryTarget

SEGMENT = 16 << 20


@pytest.mark.parametrize(
    ("source", "stop", "target"),
    [
        (BackupSource.PRIMARY, 3 * SEGMENT + 40, RecoveryTarget.END_OF_BACKUP),
        (BackupSource.PRIMARY, 3 * SEGMENT, RecoveryTarget.END_OF_WAL),
        (BackupSource.STANDBY, 3 * SEGMENT + 40, RecoveryTarget.END_OF_WAL),
    ],
    ids=["a record follows", "the last record ends its segment", "a standby writes none"],
)
def test_the_end_of_the_backup_is_a_target_only_where_a_record_follows(
    source: BackupSource, stop: int, target: RecoveryTarget
) -> None:
    assert recovery_target(source, Lsn(stop), SEGMENT) is target
