"""What became of each blob event, on disk; without a receipt it is delivered, again if need be."""

import sqlite3
from dataclasses import astuple, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BlobEvent:
    """One committed blob that one function wants to hear of; the key of the real receipts, too."""

    function: str
    container: str
    name: str
    etag: str


class Receipts:
    """Used by one thread. A row is final when `done`; else `tries` counts the failed deliveries."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute(
            "create table if not exists receipt (function text, container text, name text, "
            "etag text, tries integer not null, done integer not null, "
            "primary key (function, container, name, etag))"
        )

    def is_done(self, event: BlobEvent) -> bool:
        return self._row(event)[1] == 1

    def finish(self, event: BlobEvent) -> None:
        self._write(event, self._row(event)[0], done=True)

    def count_failure(self, event: BlobEvent) -> int:
        """Returns how often the event has failed by now."""
        tries = self._row(event)[0] + 1
        self._write(event, tries, done=False)
        return tries

    def close(self) -> None:
        self._database.close()

    def _row(self, event: BlobEvent) -> tuple[int, int]:
        """`tries` and `done`."""
        query = (
            "select tries, done from receipt where (function, container, name, etag) = (?,?,?,?)"
        )
        row: tuple[int, int] | None = self._database.execute(query, astuple(event)).fetchone()
        return row or (0, 0)

    def _write(self, event: BlobEvent, tries: int, *, done: bool) -> None:
        statement = "insert or replace into receipt values (?, ?, ?, ?, ?, ?)"
        self._database.execute(statement, (*astuple(event), tries, done))
