"""The audit trail: numbered without a gap, chained, and every change to it found."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidInput
from shared.repository import audit_trail, layout
from shared.repository.audit_trail import (
    AuditEvent,
    AuditTrailBroken,
    AuditTrailBusy,
    append,
    verify_trail,
)
from shared.repository.blob_store import BlobInfo, BlobName
from shared.repository.directory_blob_store import DirectoryBlobStore
from tests.harness.signed_repository import NOON


@pytest.fixture
def store(tmp_path: Path) -> DirectoryBlobStore:
    made = DirectoryBlobStore(tmp_path / "repository")
    made.create_container(layout.EVIDENCE)
    return made


def event(serial: int, number: int, previous: str | None) -> AuditEvent:
    return AuditEvent(
        number=number,
        id=UUID(int=serial),
        at=NOON,
        caller="anna",
        caller_name="Anna",
        action="backup.request",
        object="cluster demo",
        outcome="allowed",
        details={"kind": "full"},
        previous=previous,
    )


def write(store: DirectoryBlobStore, *serials: int) -> None:
    for serial in serials:
        append(store, lambda number, previous, s=serial: event(s, number, previous))  # type: ignore[misc]


def rewrite(store: DirectoryBlobStore, number: int, data: bytes | None) -> None:
    name = layout.audit_event(number)
    store.delete(name)
    if data is not None:
        store.create(name, data)


def facts(store: DirectoryBlobStore) -> list[tuple[int, str]]:
    return [(one.number, one.fact) for one in verify_trail(store).breaks]


def test_events_are_numbered_from_one_and_chained(store: DirectoryBlobStore) -> None:
    assert verify_trail(store).events == 0
    write(store, 1, 2, 3)
    names = [blob.name.path for blob in store.list(layout.EVIDENCE)]
    assert names[0] == "_audit/000000000001.json"
    verified = verify_trail(store)
    assert (verified.events, verified.breaks) == (3, ())
    first, second = (store.read(layout.audit_event(number), limit=9999) for number in (1, 2))
    assert AuditEvent.model_validate_json(first).previous is None
    digest = hashlib.sha256(first).hexdigest()
    assert AuditEvent.model_validate_json(second).previous == digest


def test_writers_at_once_leave_one_chain_and_lose_nothing(store: DirectoryBlobStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(write, store, serial) for serial in range(1, 21)]:
            job.result()
    blobs = store.list(layout.EVIDENCE)
    ids = {AuditEvent.model_validate_json(store.read(b.name, limit=9999)).id.int for b in blobs}
    assert ids == set(range(1, 21))
    assert verify_trail(store).breaks == ()


def test_whoever_loses_every_race_gives_up_and_says_so(store: DirectoryBlobStore) -> None:
    def slow(number: int, previous: str | None) -> AuditEvent:
        write(store, 100 + number)
        return event(1, number, previous)

    with pytest.raises(AuditTrailBusy):
        append(store, slow)
    assert verify_trail(store).events == audit_trail.ATTEMPTS


@pytest.mark.parametrize(
    ("number", "data", "found"),
    [
        (3, None, [(3, "3 to 3 are missing")]),
        (1, None, [(1, "1 to 1 are missing")]),
        (2, b"{}", [(2, "the document does not read")]),
        (2, b"x" * 20_000, [(2, "the document does not read")]),
    ],
)
def test_what_is_missing_or_replaced_is_found(
    store: DirectoryBlobStore, number: int, data: bytes | None, found: list[tuple[int, str]]
) -> None:
    write(store, 1, 2, 3, 4, 5)
    rewrite(store, number, data)
    assert facts(store)[: len(found)] == found
    follower = number + 1
    assert any(one == follower and "it follows" in fact for one, fact in facts(store))


@given(st.data())
def test_no_byte_of_any_event_changes_unseen(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        store = DirectoryBlobStore(Path(folder))
        store.create_container(layout.EVIDENCE)
        write(store, 1, 2, 3)
        newest = verify_trail(store).newest
        number = data.draw(st.integers(1, 3))
        raw = bytearray(store.read(layout.audit_event(number), limit=9999))
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] ^= data.draw(st.integers(1, 255))
        rewrite(store, number, bytes(raw))
        verified = verify_trail(store)
        # The newest has no follower that vouches for it: then a copy of its digest must.
        assert verified.breaks or (number == 3 and verified.newest != newest)


def test_strangers_among_the_events_are_reported_and_stop_nobody(
    store: DirectoryBlobStore,
) -> None:
    write(store, 1)
    store.create(BlobName(layout.EVIDENCE, "_audit/000000000001.json.bak"), b"x")
    store.create(BlobName(layout.EVIDENCE, "_audit/zzz"), b"x")
    write(store, 2)
    assert [number for number, _ in facts(store)] == [1, 2]
    assert verify_trail(store).events == 2


def test_nothing_follows_an_event_that_is_not_what_its_name_says(
    store: DirectoryBlobStore,
) -> None:
    write(store, 1)
    store.create(layout.audit_event(7), event(7, 6, None).canonical())
    with pytest.raises(AuditTrailBroken, match="says that it is number 6"):
        write(store, 2)


def test_the_newest_is_found_in_few_requests_in_a_long_trail(
    store: DirectoryBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_trail, "_PAGE", 4)
    asked = []
    listing = store.list

    def counted(*given: Any, **named: Any) -> Iterator[BlobInfo]:
        asked.append(given)
        return listing(*given, **named)

    monkeypatch.setattr(store, "list", counted)
    for length in range(1, 60):
        asked.clear()
        write(store, length)
        assert len(asked) <= 10
    assert verify_trail(store).events == 59
    assert verify_trail(store).breaks == ()


@given(st.integers(0, 10**12 - 1))
def test_names_of_events_read_back_and_sort_by_number(number: int) -> None:
    name = layout.audit_event(number)
    assert layout.parse_audit_event(name) == number
    assert layout.audit_event(max(number - 1, 0)).path <= name.path


@pytest.mark.parametrize(
    "path", ["_audit/1.json", "demo/cluster.json", "_audit/00000000000\u0661.json"]
)
def test_other_names_are_none(path: str) -> None:
    with pytest.raises(InvalidInput):
        layout.parse_audit_event(BlobName(layout.EVIDENCE, path))
