"""What WAL writers report, on a queue of their own: how far they are, and what does not fit.

A report is a hint for people and alerts. What is archived is decided by the archive alone.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared.domain.field_types import Cluster, LsnText, Sha256, Size
from shared.domain.freshness import SlotState, WalGap, WriterReport
from shared.domain.wal_findings import SeenConflict
from shared.errors import MessageInvalid
from shared.jobs.messages import MAX_MESSAGE

Timeline = Annotated[int, Field(ge=1, lt=2**32)]


class SlotStatus(BaseModel):
    """A row of pg_replication_slots. Sizes in bytes; `keep_bytes` None means without a limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(max_length=63)
    active: bool
    wal_status: str | None = Field(default=None, max_length=20)
    retained_bytes: int | None = None
    keep_bytes: int | None = None

    def state(self) -> SlotState:
        return SlotState(
            self.name, self.active, self.wal_status, self.retained_bytes, self.keep_bytes
        )


class WalEventMessage(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    cluster: Cluster
    at: AwareDatetime
    writer: Literal["receive", "agent"]
    host: str = Field(max_length=200)


class WalProgress(WalEventMessage):
    """Each [wal] report_seconds. At `at` the server had written up to `server_lsn`, and this
    writer's share of the archive was durable up to `archived_lsn`, whose newest commit was at
    `archived_commit`. `unarchived_bytes` and `waiting_files` are what the server still keeps.
    """

    kind: Literal["progress"] = "progress"
    timeline: Timeline
    server_lsn: LsnText | None = None
    archived_lsn: LsnText | None = None
    archived_commit: AwareDatetime | None = None
    unarchived_bytes: Size | None = None
    waiting_files: int | None = Field(default=None, ge=0)
    slot: SlotStatus | None = None

    def report(self) -> WriterReport:
        return WriterReport(
            writer=self.writer,
            host=self.host,
            at=self.at,
            timeline=self.timeline,
            server_lsn=self.server_lsn,
            unarchived_bytes=self.unarchived_bytes,
            slot=self.slot.state() if self.slot else None,
        )


class WalConflictSeen(WalEventMessage):
    """Another content under a name that the archive has: two primaries, or a clone of one."""

    kind: Literal["conflict"] = "conflict"
    name: str = Field(max_length=64)
    stored_sha256: Sha256 | None
    offered_sha256: Sha256

    def conflict(self) -> SeenConflict:
        return SeenConflict(self.at, self.writer, self.host, self.name)


class WalGapSeen(WalEventMessage):
    """The server no longer had the WAL after `from_lsn`; archiving went on at `to_lsn`."""

    kind: Literal["gap"] = "gap"
    timeline: Timeline
    from_lsn: LsnText
    to_lsn: LsnText

    def gap(self) -> WalGap:
        return WalGap(self.timeline, self.from_lsn, self.to_lsn, self.at, reported=True)


WalEvent = WalProgress | WalConflictSeen | WalGapSeen
_EVENT: TypeAdapter[WalEvent] = TypeAdapter(Annotated[WalEvent, Field(discriminator="kind")])


def parse_wal_event(text: str) -> WalEvent:
    """Raises MessageInvalid, naming the first field that does not fit."""
    if len(text) > MAX_MESSAGE:
        raise MessageInvalid(f"message of {len(text)} characters is longer than {MAX_MESSAGE}")
    try:
        return _EVENT.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        raise MessageInvalid(f"{where}: {first['msg'].lower()}") from None
