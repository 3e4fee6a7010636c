"""`python -m local up` and `down`: a whole stack comes up, answers, and leaves nothing behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from local import unprivileged
from local.processes import CHECKOUT, record, wait_until
from local.stack_directory import DirectoryNotOurs, claimed
from shared import adapters
from shared.jobs.messages import QUEUES
from shared.repository import layout
from shared.settings import AzureRepository, load

pytestmark = [pytest.mark.integration, pytest.mark.slow]
GONE_S = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    """Reachable for PostgreSQL's account, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="pgkeep-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        local("down", path)
        shutil.rmtree(path)


def local(verb: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local", verb, "--dir", str(folder), *options]
    return subprocess.run(
        command, check=False, cwd=CHECKOUT, capture_output=True, text=True, timeout=200
    )


def up(folder: Path, *options: str) -> dict[str, str]:
    done = local("up", folder, "--detach", "--json", "--megabytes", "1", *options)
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, str] = json.loads(done.stdout)
    return found


def programs_of(*folders: str | Path) -> list[str]:
    """Command lines of every process on this machine that names one of the folders."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if process.pid != os.getpid() and any(str(folder) in line for folder in folders):
            found.append(line)
    return found


def status(found: dict[str, str], path: str, *, token: str = "") -> int:
    address = urlsplit(found["functions_url"]).netloc
    with closing(HTTPConnection(address, timeout=30)) as connection:
        try:
            connection.request("GET", path, headers={"authorization": f"Bearer {token}"})
        except OSError:
            pytest.fail(f"no answer: {(Path(found['directory']) / 'up.log').read_text()}")
        return connection.getresponse().status


def system_identifier(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select system_identifier from pg_control_system()").fetchone()
    assert row is not None
    return int(row[0])


def test_two_stacks_run_side_by_side_and_down_ends_just_one(folder: Path) -> None:
    first, second = folder / "first", folder / "second"
    try:
        one, two = up(first), up(second)
        assert one["functions_url"] != two["functions_url"]
        assert one["blob_url"] != two["blob_url"]
        for found in (one, two):
            token = local("token", Path(found["directory"]), "--role", "reader").stdout.strip()
            assert status(found, "/api/health") == 200
            assert status(found, "/api/backups") == 401
            assert status(found, "/api/backups", token=token) == 200
        assert local("down", first).stdout == "ended\n"
        assert programs_of(f"{first}/") == []
        assert not Path(one["data"]).exists()
        assert status(two, "/api/health") == 200
    finally:
        local("down", first)
        local("down", second)
    assert programs_of(f"{second}/") == []
    assert local("down", second).stdout == "no stack runs there\n"


def test_the_settings_are_complete_and_the_catalogue_has_a_server_of_its_own(
    folder: Path,
) -> None:
    found = up(folder)
    settings = load(Path(found["config"]), {})
    assert isinstance(settings.repository, AzureRepository)
    store = adapters.blob_store(settings.repository, threads=1)
    for container in layout.CONTAINERS:
        assert [blob for blob in store.list(container) if "never" in blob.name.path] == []
    for name in QUEUES:
        assert adapters.job_queue(settings, name).approximate_length() >= 0
    assert adapters.pinned_keys(settings.keys)
    assert system_identifier(found["source_dsn"]) != system_identifier(found["catalogue_dsn"])
    with psycopg.connect(found["backup_dsn"]) as connection:
        row = connection.execute(
            "select rolreplication, rolsuper, (select count(*) from documents) > 0 "
            "from pg_roles where rolname = current_user"
        ).fetchone()
    assert row == (True, False, True)
    for secret in ("pgkeep.toml", "backup_user.passfile", "local.settings.json", "host/host_key"):
        assert (folder / secret).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_runs_on_when_a_stack_in_the_foreground_ends(
    folder: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "local", "up", "--dir", str(folder), "--megabytes", "1"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as stack:
        assert stack.stdout is not None
        assert stack.stdout.readline().startswith("directory")
        assert len(programs_of(folder)) > 5
        stack.send_signal(number)
        stack.stdout.read()
        status = stack.wait(GONE_S)
    assert status == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    assert wait_until(lambda: programs_of(folder) == [], GONE_S), programs_of(folder)


def test_a_signal_during_the_start_leaves_nothing_either(folder: Path) -> None:
    command = [sys.executable, "-m", "local", "up", "--dir", str(folder), "--megabytes", "1"]
    with subprocess.Popen(command, cwd=CHECKOUT) as stack:
        assert wait_until((folder / "data" / "storage").exists, GONE_S)
        stack.send_signal(signal.SIGTERM)
        assert stack.wait(GONE_S) == 130
    assert programs_of(folder) == []


def test_a_running_stack_is_not_started_again_and_a_killed_one_is(folder: Path) -> None:
    up(folder)
    again = local("up", folder)
    assert (again.returncode, "stack-runs" in again.stderr) == (7, True)
    holder = json.loads((folder / "stack.json").read_text())["holder"]
    os.kill(holder["pid"], signal.SIGKILL)
    assert wait_until(lambda: programs_of(folder) == [], GONE_S), programs_of(folder)
    assert status(up(folder), "/api/health") == 200


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DirectoryNotOurs), claimed(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_stale_record_whose_process_id_was_reused_harms_nobody(tmp_path: Path) -> None:
    with claimed(tmp_path):
        pass
    stale = json.loads((tmp_path / "stack.json").read_text())
    with subprocess.Popen(["sleep", "600"]) as stranger:
        stale["holder"] = {"pid": stranger.pid, "identity": "another boot/1"}
        (tmp_path / "stack.json").write_text(json.dumps(stale))
        assert local("down", tmp_path).stdout == "no stack runs there\n"
        assert stranger.poll() is None
        with claimed(tmp_path):
            holder = json.loads((tmp_path / "stack.json").read_text())["holder"]
            assert holder["pid"] == os.getpid()
        stranger.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands PostgreSQL to another account")
def test_data_go_elsewhere_when_postgresql_cannot_reach_the_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with claimed(closed / "stack") as directory:
        assert closed not in directory.data.parents
        assert unprivileged.may(unprivileged.server_account(), "-x", directory.data)
    assert not directory.data.exists()


def test_data_of_a_killed_stack_are_removed_by_the_next(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with claimed(tmp_path / "stack") as directory:
        pass
    left = {"format": "pgkeep-local-stack-1", "data": str(elsewhere), "holder": None}
    (directory.root / "stack.json").write_text(json.dumps(left))
    with claimed(directory.root):
        assert not elsewhere.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="somebody else already runs the other tests")
def test_a_normal_user_needs_no_root(folder: Path) -> None:
    account = unprivileged.server_account()
    readable = unprivileged.may(account, "-r", CHECKOUT / "function_app.py")
    if account is None or not readable or not unprivileged.may(account, "-x", Path(sys.executable)):
        pytest.skip("the checkout lies where the account cannot read it")
    unprivileged.hand_over(folder, account)
    command = [sys.executable, "-m", "local", "up", "--dir", str(folder), "--detach", "--json"]
    done = subprocess.run(
        [*command, "--megabytes", "1"],
        check=False,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "HOME": str(folder)},
        **unprivileged.identity(account),
    )
    assert done.returncode == 0, done.stderr
    assert status(json.loads(done.stdout), "/api/health") == 200
    holder = record(json.loads((folder / "stack.json").read_text())["holder"]["pid"])
    assert holder is not None
