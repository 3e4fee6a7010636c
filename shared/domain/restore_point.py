"""Restore points: names that pg_create_restore_point wrote into the WAL."""

from dataclasses import dataclass
from datetime import datetime

from shared.domain.field_types import LsnText


@dataclass(frozen=True, slots=True, order=True)
class RestorePoint:
    """`lsn` is the start of its WAL record, `time` the server's clock in UTC."""

    lsn: LsnText
    name: str
    time: datetime
