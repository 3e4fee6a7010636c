"""Facts of a catalogue in memory: what the repository's signed documents say.

Rows are those of the real catalogue (shared.catalogue.fact_tables); what SQL derives from them in
views is derived here in Python, each time it is asked for.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from shared.catalogue.fact_tables import (
    BACKUP,
    CLUSTER,
    DRILL,
    EXPIRY,
    FACT_TABLES,
    VERIFICATION,
    FactRow,
    FactTable,
    row_of,
)
from shared.catalogue.ports import CataloguedBackup, Fact
from shared.domain.backup import BackupFacts, BackupLabel
from shared.domain.cluster import ClusterName
from shared.domain.lsn import Lsn
from shared.domain.needed_until import GuardedBackup
from shared.repository import layout
from shared.repository.backups import BackupNotFound
from shared.repository.blob_store import BlobName
from shared.repository.documents import DrillReport, Finding, FullInstead
from shared.repository.expiry_documents import ExpiryReport
from shared.repository.layout import BackupRef

Values = dict[str, Any]
Key = tuple[Any, ...]


@dataclass(slots=True)
class Judgement:
    """Of one document, by all reports about it: when it was last found sound, and damaged."""

    good_at: datetime | None = None
    bad_at: datetime | None = None

    def note(self, at: datetime, *, good: bool, bad: bool) -> None:
        if good:
            self.good_at = max(at, self.good_at or at)
        if bad:
            self.bad_at = max(at, self.bad_at or at)


_NOTHING_KNOWN = Judgement()


class MemoryFacts:
    """See shared.catalogue.ports.RepositoryIndex and guard_port.GuardFacts for the contract."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[str, dict[Key, Values]] = {table.name: {} for table in FACT_TABLES}
        self._recorded: dict[str, dict[Key, datetime]] = {table.name: {} for table in FACT_TABLES}
        self._names: set[BlobName] = set()
        self._labels: dict[ClusterName, list[str]] = {}
        self._geo_safe: dict[tuple[str, str], datetime] = {}
        self._forget_derived()

    def record(self, fact: Fact, now: datetime) -> bool:
        row = row_of(fact)
        known = self._rows[row.table.name].get(row.key)
        if known is None:
            self._put(row.table, row.key, plain(row), now)
            return True
        if known["digest"] != row.values["digest"]:
            raise row.table.conflict(
                f"{row.table.name} {'/'.join(map(str, row.key))} is known with digest "
                f"{known['digest']}, not {row.values['digest']}"
            )
        return False

    def replace(self, facts: Iterable[Fact], now: datetime) -> None:
        rows = [row_of(fact) for fact in facts]
        given = {(row.table.name, row.key) for row in rows}
        for table in FACT_TABLES:
            for key, at in list(self._recorded[table.name].items()):
                if at < now and (table.name, key) not in given:
                    self._drop(table, key)
        for row in rows:
            self._put(row.table, row.key, plain(row), now)
        self._derive_anew()

    def backups(
        self, cluster: ClusterName | None = None, *, limit: int, before: str | None = None
    ) -> Sequence[CataloguedBackup]:
        found = [row for row in self._of(cluster) if before is None or row["label"] < before]
        found.sort(key=lambda row: row["cluster"])
        found.sort(key=lambda row: row["label"], reverse=True)
        return [self._backup(row) for row in found[:limit]]

    def backup(self, ref: BackupRef) -> CataloguedBackup:
        row = self._rows[BACKUP.name].get((ref.cluster, ref.label.text))
        if row is None:
            raise BackupNotFound(f"cluster {ref.cluster} has no backup {ref.label}")
        return self._backup(row)

    def known_blobs(self) -> set[BlobName]:
        return set(self._names)

    def never_verified(self, committed_before: datetime) -> Sequence[CataloguedBackup]:
        found = [
            row
            for row in self._rows[BACKUP.name].values()
            if row["committed_at"] < committed_before
            and self._checked.get(_document(row), _NOTHING_KNOWN) == _NOTHING_KNOWN
        ]
        found.sort(key=lambda row: (row["label"], row["cluster"]))
        return [self._backup(row) for row in found]

    def drill_report(self, cluster: ClusterName, report_id: str) -> DrillReport | None:
        row = self._rows[DRILL.name].get((cluster, report_id))
        return DrillReport.model_validate(row["report"]) if row else None

    def forget(self, backups: Mapping[BackupRef, str]) -> None:
        for ref, digest in backups.items():
            row = self._rows[BACKUP.name].get((ref.cluster, ref.label.text))
            if row is not None and row["digest"] == digest:
                self._drop(BACKUP, (ref.cluster, ref.label.text))

    def lost_predecessors(self) -> Sequence[tuple[BackupRef, BackupRef]]:
        found = []
        rows = self._rows[BACKUP.name]
        for (cluster, label), row in sorted(rows.items()):
            previous = row["previous_label"]
            if previous is None or (cluster, previous) in rows or (cluster, previous) in self._went:
                continue
            name = ClusterName(cluster)
            found.append(
                (BackupRef(name, BackupLabel(label)), BackupRef(name, BackupLabel(previous)))
            )
        return found

    def lost_backups(self, told_since: datetime) -> Sequence[BackupRef]:
        told = {
            (row["cluster"], row["label"])
            for table in (VERIFICATION, DRILL)
            for row in self._rows[table.name].values()
            if row["created_at"] >= told_since
        }
        return [
            BackupRef(ClusterName(cluster), BackupLabel(label))
            for cluster, label in sorted(told - self._rows[BACKUP.name].keys() - self._went)
        ]

    def differing_columns(self, fact: Fact) -> Sequence[str]:
        row = row_of(fact)
        known = self._rows[row.table.name].get(row.key)
        told = plain(row)
        return [] if known is None else [
            column for column in row.table.columns if known[column] != told[column]
        ]  # fmt: skip

    def newest_expiry(self, cluster: ClusterName) -> ExpiryReport | None:
        runs = self._expiries.get(cluster, [])
        return ExpiryReport.model_validate(_first(runs)["report"]) if runs else None

    def wal_starts(self, cluster: ClusterName) -> Mapping[int, Lsn]:
        runs = [row for row in self._expiries.get(cluster, ()) if row["report"]["wal"]["before"]]
        if not runs:
            return {}
        before = _first(runs)["report"]["wal"]["before"]
        return {one["timeline"]: Lsn.parse(one["lsn"]) for one in before}

    def content(self) -> Mapping[str, Sequence[Mapping[str, object]]]:
        return {
            name: [dict(rows[key]) for key in sorted(rows)] for name, rows in self._rows.items()
        }

    def guarded_backups(
        self, clusters: Collection[ClusterName]
    ) -> Mapping[ClusterName, Sequence[GuardedBackup]]:
        return {
            cluster: [self._guarded(row) for row in self._of(cluster)]
            for cluster in clusters
            if self._labels.get(cluster)
        }

    def _guarded(self, row: Values) -> GuardedBackup:
        checked = self._checked.get(_document(row), _NOTHING_KNOWN)
        rehearsed = self._rehearsed.get(_document(row), _NOTHING_KNOWN)
        found_sound = (checked.good_at or rehearsed.good_at) is not None
        good = found_sound and _stands(checked) and _stands(rehearsed) and not row["suspect"]
        parent = row["parent_label"]
        return GuardedBackup(BackupLabel(row["label"]), parent and BackupLabel(parent), good)

    def _of(self, cluster: ClusterName | None) -> list[Values]:
        """Of one cluster, oldest first; or all."""
        rows = self._rows[BACKUP.name]
        if cluster is None:
            return list(rows.values())
        return [rows[cluster, label] for label in self._labels.get(cluster, ())]

    def _facts(self, row: Values) -> BackupFacts:
        checked = self._checked.get(_document(row), _NOTHING_KNOWN)
        rehearsed = self._rehearsed.get(_document(row), _NOTHING_KNOWN)
        return BackupFacts(
            committed_at=row["committed_at"],
            verified_at=checked.good_at,
            verification_failed_at=checked.bad_at,
            proven_at=rehearsed.good_at,
            drill_failed_at=rehearsed.bad_at,
            suspect=row["suspect"],
            ancestor_failed_at=self._ancestor_failed_at(row),
            geo_safe_at=self._geo_safe.get((row["cluster"], row["label"])),
        )

    def _ancestor_failed_at(self, row: Values) -> datetime | None:
        judged = (self._checked.get(_document(one), _NOTHING_KNOWN) for one in self._ancestors(row))
        failed = [one.bad_at for one in judged if one.bad_at and not _stands(one)]
        return max(failed, default=None)

    def _ancestors(self, row: Values) -> Iterator[Values]:
        """Even parents that somebody made up in a circle come to an end."""
        seen: set[str] = set()
        label = row["parent_label"]
        while label is not None and label not in seen:
            seen.add(label)
            parent = self._rows[BACKUP.name].get((row["cluster"], label))
            if parent is None:
                return
            yield parent
            label = parent["parent_label"]

    def _backup(self, row: Values) -> CataloguedBackup:
        instead = row["full_instead"]
        return CataloguedBackup(
            ref=BackupRef(ClusterName(row["cluster"]), BackupLabel(row["label"])),
            digest=row["digest"],
            facts=self._facts(row),
            stored_bytes=row["stored_bytes"],
            plain_bytes=row["plain_bytes"],
            findings=tuple(Finding.model_validate(one) for one in row["findings"]),
            parent=row["parent_label"],
            depth=row["depth"],
            instead_of_incremental=instead and FullInstead.model_validate(instead),
        )

    def _put(self, table: FactTable, key: Key, values: Values, now: datetime) -> None:
        new = key not in self._rows[table.name]
        self._rows[table.name][key] = values
        self._recorded[table.name].setdefault(key, now)
        if new:
            self._derive(table, key, values)

    def _drop(self, table: FactTable, key: Key) -> None:
        del self._rows[table.name][key], self._recorded[table.name][key]
        self._names -= set(_name(table, key))
        if table is BACKUP:
            cluster, label = key
            labels = self._labels[cluster]
            del labels[bisect_left(labels, label)]
            self._geo_safe.pop(key, None)

    def _derive(self, table: FactTable, key: Key, values: Values) -> None:
        self._names.update(_name(table, key))
        if table is BACKUP:
            insort(self._labels.setdefault(ClusterName(values["cluster"]), []), values["label"])
        elif table is VERIFICATION:
            passed = values["passed"]
            judged = self._checked[_judged(values)]
            judged.note(values["created_at"], good=passed and values["deep"], bad=not passed)
        elif table is DRILL:
            verdict = values["verdict"]
            judged = self._rehearsed[_judged(values)]
            judged.note(values["created_at"], good=verdict == "proven", bad=verdict == "failed")
            self._drills[ClusterName(values["cluster"])].append(values)
        elif table is EXPIRY:
            self._expiries[ClusterName(values["cluster"])].append(values)
            went = values["report"]["went"]
            self._went |= {(values["cluster"], one["label"]) for one in went}

    def _forget_derived(self) -> None:
        self._checked: dict[Key, Judgement] = defaultdict(Judgement)
        self._rehearsed: dict[Key, Judgement] = defaultdict(Judgement)
        self._drills: dict[ClusterName, list[Values]] = defaultdict(list)
        self._expiries: dict[ClusterName, list[Values]] = defaultdict(list)
        self._went: set[tuple[str, str]] = set()

    def _derive_anew(self) -> None:
        self._forget_derived()
        self._names, self._labels = set(), {}
        for table in FACT_TABLES:
            for key, values in self._rows[table.name].items():
                self._derive(table, key, values)


def plain(row: FactRow) -> Values:
    """As the database gives it back: what JSON makes of it."""
    return {
        column: value.obj if isinstance(value, Jsonb) else value
        for column, value in row.values.items()
    }


def _stands(judged: Judgement) -> bool:
    return judged.bad_at is None or (judged.good_at is not None and judged.good_at > judged.bad_at)


def _document(row: Values) -> Key:
    return row["cluster"], row["label"], row["digest"]


def _judged(report: Values) -> Key:
    return report["cluster"], report["label"], report["document_digest"]


def _first(runs: Sequence[Values]) -> Values:
    """The newest; of one instant, the least id."""
    newest = max(row["created_at"] for row in runs)
    return min((row for row in runs if row["created_at"] == newest), key=lambda row: str(row["id"]))


def _name(table: FactTable, key: Key) -> Iterator[BlobName]:
    """Of the document that the row follows from."""
    if table is CLUSTER:
        return
    cluster, own = ClusterName(key[0]), key[1]
    if table is BACKUP:
        yield BackupRef(cluster, BackupLabel(own)).document
    elif table is VERIFICATION:
        yield layout.verification_report(cluster, own)
    elif table is DRILL:
        yield layout.drill_report(cluster, own)
    elif table is EXPIRY:
        yield layout.expiry_report(cluster, own)
