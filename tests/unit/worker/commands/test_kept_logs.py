"""Logs of drills: kept for a while, bounded, and swept without touching what is not ours."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from worker.commands.kept_logs import (
    KEPT_BYTES,
    KEPT_DIRECTORIES,
    KEPT_FOR,
    LOG_BYTES,
    MARKER,
    keep_logs,
    sweep_logs,
)
from worker.postgres.scratch import Scratch

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)


def keep(root: Path, token: str, when: datetime = NOW, content: bytes = b"why") -> Path:
    directory = root / token
    directory.mkdir()
    (directory / "server.log").write_bytes(content)
    kept = keep_logs(Scratch(directory), root, when)
    assert kept is not None
    return kept


def test_logs_outlive_their_drill_by_a_fortnight(tmp_path: Path) -> None:
    old = keep(tmp_path, "old", NOW - KEPT_FOR - timedelta(seconds=1))
    young = keep(tmp_path, "young", NOW - KEPT_FOR)
    assert sweep_logs(tmp_path, NOW) == 1
    assert not old.exists()
    assert (young / "server.log").read_text() == "why"
    assert young.stat().st_mode & 0o777 == 0o700


def test_the_newest_are_kept_by_number_and_by_bytes(tmp_path: Path) -> None:
    for number in range(KEPT_DIRECTORIES + 2):
        keep(tmp_path, f"n{number}", NOW - timedelta(minutes=number))
    assert sweep_logs(tmp_path, NOW) == 2
    assert (tmp_path / "n0-logs").exists()
    assert not (tmp_path / f"n{KEPT_DIRECTORIES}-logs").exists()
    for number in (0, 1):  # sparse: they have the size and no blocks
        os.truncate(tmp_path / f"n{number}-logs/server.log", KEPT_BYTES - 4096)
    assert sweep_logs(tmp_path, NOW) == KEPT_DIRECTORIES - 1
    assert [path.name for path in tmp_path.glob("*-logs")] == ["n0-logs"]


def test_only_what_is_ours_is_removed_and_nothing_through_a_link(tmp_path: Path) -> None:
    root, old = tmp_path / "scratch", NOW - 2 * KEPT_FOR
    root.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    precious = keep(elsewhere, "theirs", old)
    (root / "linked-logs").symlink_to(precious)
    (root / "unmarked-logs").mkdir()
    (root / "unmarked-logs/server.log").touch()
    mixed = keep(root, "mixed", old)
    (mixed / "notes.txt").write_text("mine")
    ours = keep(root, "ours", old)
    (ours / "link.log").symlink_to(precious / "server.log")
    assert sweep_logs(root, NOW) == 1
    assert not ours.exists()
    assert (precious / "server.log").exists()
    assert (root / "unmarked-logs/server.log").exists()
    assert sorted(path.name for path in mixed.iterdir()) == ["notes.txt", MARKER]


def test_a_sweep_that_was_killed_is_ended_by_the_next(tmp_path: Path) -> None:
    half = keep(tmp_path, "half", NOW - 2 * KEPT_FOR)
    (half / "server.log").unlink()
    assert sweep_logs(tmp_path, NOW) == 1
    assert not half.exists()


@pytest.mark.parametrize("plant", ["link", "hard link", "pipe"])
def test_t13_a_planted_log_shows_nobody_s_secrets_and_holds_nobody_up(
    tmp_path: Path, plant: str
) -> None:
    secret = tmp_path / "key.pem"
    secret.write_text("secret")
    directory = tmp_path / "drill"
    directory.mkdir()
    (directory / "amcheck.log").write_bytes(b"x" * (LOG_BYTES + 1))
    log = directory / "server.log"
    match plant:
        case "link":
            log.symlink_to(secret)
        case "hard link":
            log.hardlink_to(secret)
        case _:
            os.mkfifo(log)
    kept = keep_logs(Scratch(directory), tmp_path, NOW)
    assert kept is not None
    assert sorted(path.name for path in kept.iterdir()) == ["amcheck.log", MARKER]
    assert (kept / "amcheck.log").stat().st_size == LOG_BYTES
