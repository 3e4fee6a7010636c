"""Every change that somebody asks for is written down before it is made, or it is not made."""

import logging
from collections.abc import Mapping
from typing import Literal

from functions.callers import Caller
from functions.wiring import Services
from shared.event_log import log_event
from shared.repository.audit_trail import AuditEvent, append


def record(
    services: Services, caller: Caller, action: str, subject: str, details: Mapping[str, str]
) -> AuditEvent:
    """That the caller may do it: call this first, and change nothing when it raises.

    Raises AuditTrailBusy, AuditTrailBroken, and what the store raises.
    """
    stored = _append(services, caller, (action, subject, "allowed"), details)
    log_event(
        "change-allowed",
        number=stored.number,
        caller=caller.id,
        action=action,
        object=subject,
        details=stored.details,
    )
    return stored


def record_refusal(
    services: Services, caller: Caller, action: str, subject: str, code: str
) -> AuditEvent:
    """That somebody we know wanted it, and why it was not done."""
    stored = _append(services, caller, (action, subject, "refused"), {"code": code})
    log_event(
        "change-refused",
        level=logging.WARNING,
        number=stored.number,
        caller=caller.id,
        action=action,
        object=subject,
        code=code,
    )
    return stored


def _append(
    services: Services,
    caller: Caller,
    what: tuple[str, str, Literal["allowed", "refused"]],
    details: Mapping[str, str],
) -> AuditEvent:
    event_id, now = services.new_id(), services.clock()
    action, subject, outcome = what

    def event(number: int, previous: str | None) -> AuditEvent:
        return AuditEvent(
            number=number,
            id=event_id,
            at=now,
            caller=caller.id,
            caller_name=caller.name,
            action=action,
            object=subject,
            outcome=outcome,
            details=dict(details),
            previous=previous,
        )

    return append(services.store, event)
