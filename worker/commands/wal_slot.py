"""The replication slot of a receiver: there, and holding back WAL."""

import logging

from shared.errors import NotFound, ProtocolViolation
from shared.event_log import log_event
from shared.settings import ClusterWal
from worker.postgres.connection import ReplicationConnection
from worker.postgres.replication import show
from worker.postgres.replication_slots import Slot, create_slot, drop_slot, read_slot

_UNLIMITED = "-1"  # what SHOW max_slot_wal_keep_size prints


class SlotMissing(NotFound):
    """The server has no such replication slot, and the settings forbid to create it."""

    code = "wal-slot-missing"
    hint = "Run `select pg_create_physical_replication_slot('…', true)`, or set create_slot."


def ready_slot(connection: ReplicationConnection, settings: ClusterWal) -> Slot:
    """The slot as it is, or made now. Raises SlotMissing, SlotBusy.

    One that holds back nothing was invalidated, or never used; the former cannot be revived, so
    both are replaced, if slots may be created.
    """
    slot = read_slot(connection, settings.slot)
    if slot is None and not settings.create_slot:
        raise SlotMissing(f"the server has no replication slot {settings.slot}")
    if slot is None or (slot.restart_lsn is None and settings.create_slot):
        return _created(connection, settings.slot, replaces=slot is not None)
    if slot.restart_lsn is None:
        log_event("wal-slot-holds-nothing", level=logging.WARNING, slot=settings.slot)
    return slot


def warn_of_unlimited(connection: ReplicationConnection, settings: ClusterWal) -> None:
    """A receiver that stays away would fill the server's disk (trap 11)."""
    if show(connection, "max_slot_wal_keep_size") == _UNLIMITED:
        log_event("wal-slot-unlimited", level=logging.WARNING, slot=settings.slot)


def _created(connection: ReplicationConnection, name: str, *, replaces: bool) -> Slot:
    if replaces:
        drop_slot(connection, name)
    create_slot(connection, name)
    slot = read_slot(connection, name)
    if slot is None:
        raise ProtocolViolation(f"slot {name} is not there after it was created")
    log_event("wal-slot-created", slot=name, restart_lsn=str(slot.restart_lsn), replaces=replaces)
    return slot
