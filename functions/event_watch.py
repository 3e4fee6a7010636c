"""Whether what workers report is taken in: an event that waits for minutes is a finding.

Nobody else would see it: a worker's work does not depend on its reports, and silence counts only
while the queue is heard (functions.silent_jobs), so that a queue that stands still hides losses.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from functions.wiring import Services
from shared.domain.finding_rules import FindingCode
from shared.domain.findings import Finding
from shared.errors import PgkeepError
from shared.jobs.messages import EVENT_QUEUE

# The host asks an idle queue once a minute, and hides what it could not take in for less than that
# between its five tries: a healthy app has no event for so long, a thousand jobs at once included.
WAITS_AT_MOST: Final = timedelta(minutes=10)


def waiting_events(services: Services) -> Iterator[Finding]:
    """A queue that cannot be asked counts as one that stands still. Raises nothing."""
    now = services.clock()
    try:
        since = services.events.waiting_since()
        waiting = 0 if since is None else services.events.approximate_length()
    except PgkeepError as error:
        fact = f"the queue of events cannot be asked: {error.code}: {error.fact}"
        evidence = {"error_code": error.code}
        yield Finding(FindingCode.EVENTS_WAITING, EVENT_QUEUE, now, fact, evidence)
        return
    if since is not None and now - since > WAITS_AT_MOST:
        minutes = (now - since) // timedelta(minutes=1)
        fact = f"the oldest of {waiting} events has waited for {minutes} minutes"
        evidence = {"messages": str(waiting), "minutes": str(minutes)}
        yield Finding(FindingCode.EVENTS_WAITING, EVENT_QUEUE, since, fact, evidence)
