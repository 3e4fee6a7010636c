"""Messages that nobody could take in: tried once more, then set aside for a person, with a finding.

A message comes here after the host has tried it five times, or after a worker has refused it. Many
are sound: the catalogue was away for some minutes. What they hold otherwise must never matter:
whatever the bytes are, they end in the quarantine, where text of theirs stands escaped.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Final

from functions.finding_news import tell
from functions.intake import set_aside
from functions.wiring import Services
from shared.catalogue.ports import SetAside
from shared.domain.finding_rules import FindingCode
from shared.domain.findings import REPOSITORY, Finding
from shared.errors import InvalidInput, PgkeepError, Unavailable
from shared.event_log import log_event

# Nobody can say that a person has looked: a finding ends when no message has come for so long.
SHOWN_FOR: Final = timedelta(days=7)
_EXCERPT: Final = 300

TakeIn = Callable[[Services, bytes], None]


class MessagePoisoned(InvalidInput):
    """A message that could not be taken in, however often it was tried."""

    code = "message-poisoned"
    hint = "docs/runbooks/message-poisoned.md says how to find out who wrote it, and what is lost."


def take_in_poison(services: Services, queue: str, body: bytes, take_in: TakeIn) -> None:
    """`take_in` once more; what it refuses is set aside under the name of its `queue`.

    Raises Unavailable alone, and then the queue keeps the message.
    """
    try:
        take_in(services, body)
    except Unavailable:
        raise
    except PgkeepError as error:
        _put_aside(services, queue, body, error)
    else:
        log_event("poison-taken-in", queue=queue, bytes=len(body))


def poisoned_queues(messages: Iterable[SetAside]) -> list[Finding]:
    """One finding for each queue, however many messages it has."""
    by_queue: dict[str, list[SetAside]] = defaultdict(list)
    for message in messages:
        by_queue[message.name.partition("/")[0]].append(message)
    return [_finding(queue, found) for queue, found in by_queue.items()]


def _put_aside(services: Services, queue: str, body: bytes, reason: PgkeepError) -> None:
    name = f"{queue}/{hashlib.sha256(body).hexdigest()[:16]}"
    error = MessagePoisoned(f"{reason.code}: {_escaped(reason.fact.encode())}: {_told(body)}")
    set_aside(services, name, error)
    now = services.clock()
    one = SetAside(name, error.code, error.fact, now, now, 1)
    tell(
        services,
        REPOSITORY,
        services.catalogue.open_findings(REPOSITORY, [_finding(queue, [one])], now),
    )


def _finding(queue: str, messages: Sequence[SetAside]) -> Finding:
    newest = max(messages, key=lambda message: message.last_seen_at)
    return Finding(
        code=FindingCode.MESSAGE_POISONED,
        object=queue,
        since=min(message.first_seen_at for message in messages),
        fact=f"{len(messages)} different messages could not be taken in, the last: {newest.fact}",
        evidence={"messages": str(len(messages)), "newest": newest.name},
    )


def _told(body: bytes) -> str:
    return f"{len(body)} bytes, beginning with {_escaped(body)}"


def _escaped(text: bytes) -> str:
    """ASCII without control characters: it goes into the catalogue, logs and terminals."""
    return repr(text[:_EXCERPT])[2:-1]
