"""What is printed of the WAL archive."""

from datetime import datetime
from typing import Any

from rich.table import Table

from worker.commands.printed import OUT, megabytes, print_json
from worker.commands.wal_state import TimelineState, WalState


def wal_state(state: WalState, *, as_json: bool) -> None:
    if as_json:
        print_json({"wal": wal_members(state)})
        return
    if not state.timelines:
        OUT.print("WAL archive: empty")
        return
    table = Table("timeline", "from", "through", "last commit", "stored", title="WAL archive")
    for one in state.timelines:
        table.add_row(
            str(one.timeline),
            str(one.start),
            str(one.through),
            f"{one.through_commit:%F %TZ}" if one.through_commit else "",
            megabytes(one.stored_bytes),
        )
    OUT.print(table)
    for one in state.timelines:
        for start, end in one.gaps:
            OUT.print(f"gap: timeline {one.timeline} lacks {start} to {end}")


def wal_members(state: WalState) -> list[dict[str, Any]]:
    """For a JSON document: one object for each timeline."""
    return [_timeline(one) for one in state.timelines]


def _timeline(one: TimelineState) -> dict[str, Any]:
    return {
        "timeline": one.timeline,
        "start": str(one.start),
        "through": str(one.through),
        "first_commit": _instant(one.first_commit),
        "through_commit": _instant(one.through_commit),
        "gaps": [{"start": str(start), "end": str(end)} for start, end in one.gaps],
        "stored_bytes": one.stored_bytes,
    }


def _instant(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
