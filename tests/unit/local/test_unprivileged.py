"""Handing files and processes to the account that PostgreSQL runs as."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import unprivileged
from local.unprivileged import (
    Account,
    AccountMissing,
    DirectoryOutOfReach,
    hand_over,
    identity,
    make_reachable_directory,
    may,
    server_account,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands anything over")
NOBODY = Account("nobody", 65534, 65534)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pgkeep-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def test_a_normal_user_runs_postgresql_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert server_account() is None
    assert identity(None) == {}


def test_root_takes_the_first_account_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(unprivileged, "_ACCOUNT_NAMES", ("no-such-account", "nobody"))
    account = server_account()
    assert account is not None
    assert account.name == "nobody"


def test_root_without_any_such_account_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(unprivileged, "_ACCOUNT_NAMES", ("no-such-account",))
    with pytest.raises(AccountMissing, match="no-such-account"):
        server_account()


@needs_root
def test_a_process_of_the_account_has_its_groups_only() -> None:
    command = ["id", "-u"], ["id", "-g"], ["id", "-G"]
    said = [
        subprocess.run(ask, check=True, capture_output=True, text=True, **identity(NOBODY)).stdout
        for ask in command
    ]
    assert [answer.strip() for answer in said] == ["65534"] * 3


@needs_root
def test_a_tree_is_handed_over_and_links_out_of_it_are_not_followed(open_directory: Path) -> None:
    outside = open_directory / "outside"
    outside.touch()
    tree = open_directory / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "below/file").touch()
    (tree / "link").symlink_to(outside)
    hand_over(tree, NOBODY)
    owned = [tree, tree / "below", tree / "below/file", tree / "link"]
    assert {path.lstat().st_uid for path in owned} == {NOBODY.uid}
    assert outside.stat().st_uid == 0


@needs_root
def test_a_reachable_directory_can_be_passed_but_stays_ours(open_directory: Path) -> None:
    made = open_directory / "made"
    make_reachable_directory(made, NOBODY)
    (made / "secret").touch(0o600)
    assert made.stat().st_uid == 0
    assert may(NOBODY, "-x", made)
    assert not may(NOBODY, "-w", made)
    assert not may(NOBODY, "-r", made / "secret")


@needs_root
def test_a_directory_below_a_closed_one_is_refused(open_directory: Path) -> None:
    closed = open_directory / "closed"
    closed.mkdir(0o700)
    with pytest.raises(DirectoryOutOfReach, match="closed/data"):
        make_reachable_directory(closed / "data", NOBODY)
