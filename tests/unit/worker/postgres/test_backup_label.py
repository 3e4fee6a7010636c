"""backup_label: read strictly, and left as it is but for the two lines of an incremental backup."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.lsn import Lsn
from worker.postgres.backup_label import (
    SIZE_LIMIT,
    BackupLabelFile,
    BackupLabelFileInvalid,
    BackupStart,
    parse_backup_label,
    without_parent,
)

FULL = b"""\
START WAL LOCATION: 0/4000028 (file 000000010000000000000004)
CHECKPOINT LOCATION: 0/4000080
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-22 03:00:00 UTC
LABEL: pgkeep: INCREMENTAL FROM LSN: caf\xc3\xa9
START TIMELINE: 1
"""
PARENT = b"INCREMENTAL FROM LSN: 0/2000028\nINCREMENTAL FROM TLI: 1\n"
INCREMENTAL = FULL + PARENT


def test_where_a_backup_starts_and_what_it_builds_on_is_read() -> None:
    start = BackupStart(Lsn.parse("0/4000028"), 1)
    assert parse_backup_label(FULL) == BackupLabelFile(start, None)
    parent = BackupStart(Lsn.parse("0/2000028"), 1)
    assert parse_backup_label(INCREMENTAL) == BackupLabelFile(start, parent)
    assert str(parent) == "0/2000028 on timeline 1"


def test_exactly_the_parent_s_lines_are_left_out() -> None:
    assert without_parent(INCREMENTAL) == FULL
    assert without_parent(PARENT + FULL) == FULL
    assert without_parent(FULL) == FULL


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        FULL[:-1],
        FULL.replace(b"0/4000028", b"4000028"),
        FULL.replace(b" (file 000000010000000000000004)", b" (file 4)"),
        FULL.replace(b"START TIMELINE: 1\n", b""),
        FULL.replace(b"START TIMELINE: 1", b"START TIMELINE: 0"),
        FULL.replace(b"START TIMELINE: 1", b"START TIMELINE: -1"),
        FULL + b"START TIMELINE: 2\n",
        FULL + b"INCREMENTAL FROM LSN: 0/2000028\n",
        FULL + b"INCREMENTAL FROM TLI: 1\n",
        INCREMENTAL + PARENT,
        INCREMENTAL.replace(b"0/2000028", b"0/200002800"),
        FULL + b"no colon\n",
        FULL + b"LABEL: " + bytes(SIZE_LIMIT) + b"\n",
    ],
)
def test_whatever_postgresql_did_not_write_is_refused(raw: bytes) -> None:
    with pytest.raises(BackupLabelFileInvalid):
        parse_backup_label(raw)


@given(st.binary(max_size=300), st.integers(0, len(INCREMENTAL)))
def test_no_bytes_lead_to_another_error(noise: bytes, at: int) -> None:
    raw = INCREMENTAL[:at] + noise + INCREMENTAL[at:]
    with suppress(BackupLabelFileInvalid):
        assert parse_backup_label(raw).start.timeline > 0
