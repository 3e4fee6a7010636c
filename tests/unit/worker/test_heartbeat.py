"""A sign of life that a process gives from its own loop, and whoever looks at it."""

from pathlib import Path

import pytest

from worker.heartbeat import STOPPED_AFTER_S, Heartbeat, HeartbeatStopped, check_heartbeat


def test_a_beat_is_seen_until_it_is_too_long_ago(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    with pytest.raises(HeartbeatStopped, match="no heartbeat"):
        check_heartbeat(path, 0)
    Heartbeat(path).beat()
    beaten = path.stat().st_mtime
    assert check_heartbeat(path, beaten + 12) == "the last heartbeat was 12 s ago"
    with pytest.raises(HeartbeatStopped, match="301 s ago"):
        check_heartbeat(path, beaten + STOPPED_AFTER_S + 1)
    assert path.stat().st_mode & 0o077 == 0


def test_a_heart_that_cannot_beat_does_not_stop_the_work(tmp_path: Path) -> None:
    nowhere = tmp_path / "no" / "such" / "folder"
    Heartbeat(nowhere).beat()
    Heartbeat().beat()
    assert not nowhere.exists()
