"""What the demo has come to, and whether that proves anything."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from local.demo_guard import Caught, Rehearsal
from local.demo_rescue import Rescue
from local.document_database.load import LoadedDatabase
from local.document_database.workload import Activity
from shared.domain.drill import DrillVerdict
from shared.repository.documents import BackupDocument, DrillReport

# One to the end of the backup, one to the end of the archived WAL.
DRILLS = 2
INCREMENTALS = 3
_MB = 1_000_000


@dataclass(slots=True)
class Played:
    """What the demo has come to, so far; `reason` is why it went no further.

    `backups` is the chain, the full first; `catalogued` has entries of the catalogue by label.
    """

    database: LoadedDatabase | None = None
    activity: Activity | None = None
    backups: list[BackupDocument] = field(default_factory=list)
    catalogued: dict[str, dict[str, Any]] = field(default_factory=dict)
    drills: list[DrillReport] = field(default_factory=list)
    rescue: Rescue | None = None
    caught: Caught | None = None
    rehearsal: Rehearsal | None = None
    reason: str = "the demo did not come to a verdict"


def verdict_of(played: Played) -> str:
    """Proven: both drills say so, the catalogue agrees, not a row of the mistake is missing, and
    the guard has seen the bad rule.

    And what was drilled was a chain: a full backup in the place of an incremental proves no chain.
    """
    for drill in played.drills:
        if drill.verdict is not DrillVerdict.PROVEN:
            return f"{drill.verdict.value}: {drill.reason}"
    if played.rescue is not None and not played.rescue.equal:
        found, lost = played.rescue.found.rows, played.rescue.mistake.lost.rows
        return f"not recovered: {found} rows found, {lost} were lost, or not the same ones"
    if len(played.drills) < DRILLS or played.rescue is None:
        return played.reason
    if played.caught is None or played.rehearsal is None:
        return played.reason
    if problem := _broken_chain(played.backups):
        return problem
    newest = played.catalogued.get(played.drills[0].label, {})
    return "proven" if newest.get("proven") else f"not catalogued: {played.reason}"


def _broken_chain(backups: Sequence[BackupDocument]) -> str:
    """What keeps the backups from being one chain, in order; empty for nothing."""
    for older, newer in pairwise(backups):
        if newer.instead_of_incremental is not None:
            return f"no chain: {newer.label} is full: {newer.instead_of_incremental.reason}"
        if newer.parent is None or newer.parent.label != older.label:
            return f"no chain: {newer.label} does not build on {older.label}"
    return "" if len(backups) > INCREMENTALS else f"no chain: only {len(backups)} backups"


def beside_full(backups: Sequence[BackupDocument]) -> str:
    """What the newest one stored."""
    stored, full = backups[-1].stored_size, backups[0].stored_size
    return f"{stored / _MB:.1f} MB beside the full's {full / _MB:.1f}"
