"""The audit trail: one create-only document for each change that was asked for, each naming the
one before by its SHA-256. Two writers at once meet at a name; the loser takes the next one.

Documents are RFC 8785 canonical JSON without a signature: the function app has no key to sign
with. What makes them evidence is that `evidence` is write-once and that the chain has no gap.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal
from uuid import UUID

import rfc8785
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from shared.domain.field_types import Sha256
from shared.errors import BlobAlreadyExists, Corrupt, InvalidInput, Unavailable
from shared.repository import layout
from shared.repository.blob_store import BlobName, BlobStore

MAX_EVENT: Final = 16 * 1024
ATTEMPTS: Final = 25
# One page of a listing: within so few names nothing is searched for.
_PAGE: Final = 1000
_TEXT: Final = 500


class AuditTrailBusy(Unavailable):
    """Others wrote audit events faster than this one could find a place."""

    code = "audit-trail-busy"


class AuditTrailBroken(Corrupt):
    """The newest audit event is not where its number says, so nothing may follow it."""

    code = "audit-trail-broken"
    hint = "Compare the evidence container with its copies; then look at who can write to it."


def _short(text: str) -> str:
    return text[:_TEXT]


Text = Annotated[str, AfterValidator(_short)]


class AuditEvent(BaseModel):
    """Who wanted what and what came of it. `allowed` is written before the change is made;
    `previous` is None for the first of all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["pgkeep-audit-1"] = "pgkeep-audit-1"
    number: int = Field(ge=1, lt=10**layout.AUDIT_DIGITS)
    id: UUID
    at: AwareDatetime
    caller: Text
    caller_name: Text
    action: Text
    object: Text
    outcome: Literal["allowed", "refused"]
    details: dict[str, Text]
    previous: Sha256 | None

    def canonical(self) -> bytes:
        return rfc8785.dumps(self.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class TrailBreak:
    """Where the trail is not as it was written."""

    number: int
    fact: str


@dataclass(frozen=True, slots=True)
class VerifiedTrail:
    """How many events there are, the SHA-256 of the newest, and everything that does not fit."""

    events: int
    newest: str | None
    breaks: tuple[TrailBreak, ...]


def append(store: BlobStore, event_of: Callable[[int, str | None], AuditEvent]) -> AuditEvent:
    """Store the event that `event_of` makes of its number and of what goes before.

    Raises AuditTrailBusy, AuditTrailBroken, and what the store raises: then nothing is recorded.
    """
    for _ in range(ATTEMPTS):
        number, previous = _end(store)
        event = event_of(number + 1, previous)
        try:
            store.create(layout.audit_event(event.number), event.canonical())
        except BlobAlreadyExists:
            continue
        return event
    raise AuditTrailBusy(f"{ATTEMPTS} places in the audit trail were taken by others")


def verify_trail(store: BlobStore) -> VerifiedTrail:
    """Finds gaps, edits and strangers; what was cut off at the end shows only against a copy."""
    breaks: list[TrailBreak] = []
    events, last, previous = 0, 0, None
    for blob in store.list(layout.EVIDENCE, layout.AUDIT_PREFIX):
        number = _number(blob.name)
        if number is None:
            breaks.append(TrailBreak(last, f"{blob.name} is no audit event"))
            continue
        if number != last + 1:
            breaks.append(TrailBreak(last + 1, f"{last + 1} to {number - 1} are missing"))
        raw = store.read(blob.name, limit=MAX_EVENT) if blob.size <= MAX_EVENT else b""
        breaks += [TrailBreak(number, fact) for fact in _faults(raw, number, previous)]
        events, last, previous = events + 1, number, hashlib.sha256(raw).hexdigest()
    return VerifiedTrail(events, previous, tuple(breaks))


def _faults(raw: bytes, number: int, previous: str | None) -> Iterator[str]:
    try:
        event = AuditEvent.model_validate_json(raw)
    except ValidationError:
        yield "the document does not read"
        return
    if event.canonical() != raw:
        yield "the document is not in its one spelling"
    if event.number != number:
        yield f"the document says that it is number {event.number}"
    if event.previous != previous:
        yield f"it follows {event.previous}, not {previous}"


def _end(store: BlobStore) -> tuple[int, str | None]:
    """Number and SHA-256 of the newest event."""
    newest = _newest(store)
    if newest == 0:
        return 0, None
    raw = store.read(layout.audit_event(newest), limit=MAX_EVENT)
    try:
        event = AuditEvent.model_validate_json(raw)
    except ValidationError:
        raise AuditTrailBroken(f"audit event {newest} does not read") from None
    if event.number != newest:
        raise AuditTrailBroken(f"audit event {newest} says that it is number {event.number}")
    return newest, hashlib.sha256(raw).hexdigest()


def _newest(store: BlobStore) -> int:
    """By doubling and halving: a few requests, however long the trail is."""
    low, step = 0, _PAGE
    while _any_from(store, low + step):
        low, step = low + step, step * 2
    while step > _PAGE:
        step //= 2
        if _any_from(store, low + step):
            low += step
    return max(_numbers(store, low), default=0)


def _any_from(store: BlobStore, number: int) -> bool:
    return next(_numbers(store, number, page=1), None) is not None


def _numbers(store: BlobStore, start: int, page: int | None = None) -> Iterator[int]:
    first = layout.audit_event(start).path
    for blob in store.list(layout.EVIDENCE, layout.AUDIT_PREFIX, start=first, page=page):
        if (number := _number(blob.name)) is not None:
            yield number


def _number(name: BlobName) -> int | None:
    try:
        return layout.parse_audit_event(name)
    except InvalidInput:
        return None
