"""Replication from a file, for repositories that have no secondary of their own: an emulator's.

The file is read each time, so that whoever changes it changes what is seen.
"""

from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from shared.domain.replication import GeoReplication, ReplicationState
from shared.repository.replication_status import ReplicationUnknown


class _Recording(BaseModel):
    model_config = ConfigDict(extra="forbid")

    status: ReplicationState
    last_sync_time: AwareDatetime | None = None


class RecordedReplicationStatus:
    """See shared.repository.replication_status.ReplicationStatus for the contract."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> GeoReplication:
        try:
            recording = _Recording.model_validate_json(self._path.read_bytes())
        except OSError as error:
            raise ReplicationUnknown(f"cannot read {self._path}: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise ReplicationUnknown(f"{self._path}: {where}: {first['msg'].lower()}") from None
        return GeoReplication(recording.status, recording.last_sync_time)
