"""Annotated types for the fields of documents, messages and settings: one pattern, one place."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator

from shared.domain.backup import BackupLabel
from shared.domain.cluster import CLUSTER_NAME_PATTERN
from shared.domain.drill_target import GivenInstant, parse_drill_target
from shared.domain.lsn import Lsn
from shared.domain.recovery_target import parse_time
from shared.domain.schedule import check_cron
from shared.errors import InvalidInput


def _label(text: str) -> str:
    try:
        return BackupLabel.parse(text).text
    except InvalidInput as error:
        raise ValueError(error.fact) from None


def _lsn(value: object) -> Lsn:
    if isinstance(value, Lsn):
        return value
    try:
        return Lsn.parse(str(value))
    except InvalidInput as error:
        raise ValueError(error.fact) from None


def _transaction_number(value: object) -> int:
    """A decimal string, or the number itself: 64 bits, as pg_snapshot_xmax() prints it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[1-9]\d{0,18}", value, re.ASCII):
        return int(value)
    raise ValueError("not a transaction number")


def _drill_target(text: str) -> str:
    try:
        return str(parse_drill_target(text))
    except InvalidInput as error:
        raise ValueError(error.fact) from None


def _restore_goal(text: str) -> str:
    if text in {"latest", "immediate"}:
        return text
    try:
        return str(GivenInstant(parse_time(text)))
    except InvalidInput as error:
        raise ValueError(error.fact) from None


def _cron(text: str) -> str:
    try:
        return check_cron(text)
    except InvalidInput as error:
        raise ValueError(error.fact) from None


# RFC 8785 writes numbers as IEEE doubles: integers stay exact below 2^53.
Size = Annotated[int, Field(ge=0, lt=2**53)]
Milliseconds = Annotated[int, Field(ge=0, lt=2**53)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SystemIdentifier = Annotated[str, Field(pattern=r"^[1-9]\d{0,19}$")]
Cluster = Annotated[str, Field(pattern=CLUSTER_NAME_PATTERN)]
Label = Annotated[str, AfterValidator(_label)]
# Decimal strings in JSON: the epoch makes them larger than 2^53 may be.
TransactionNumber = Annotated[
    int, PlainValidator(_transaction_number), PlainSerializer(str, return_type=str)
]
DrillTargetText = Annotated[str, AfterValidator(_drill_target)]
# `latest`, `immediate`, or an instant with its offset.
RestoreGoalText = Annotated[str, AfterValidator(_restore_goal)]
Cron = Annotated[str, AfterValidator(_cron)]
LsnText = Annotated[Lsn, PlainValidator(_lsn), PlainSerializer(str, return_type=str)]
