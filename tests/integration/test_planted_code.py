"""T13: code that a superuser planted runs in a restored server beside the worker, as its user."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.restore_lab import restore_lab
from tests.harness.worker_services import CHECKOUT

pytestmark = pytest.mark.integration

SECRET = "the-header-of-the-identity"  # noqa: S105 - made up
# A worker that was started by its user, not by root: the kernel closes whoever changes their user.
WORKER = """
import ctypes, json, os, subprocess, sys
from pathlib import Path
from psycopg import Error, sql
from worker.postgres.instance import connect_instance, running_instance, wait_until_open
from worker.postgres.programs import find_programs, read_control_data
from worker.postgres.scratch import Scratch

directory, programs, major, uid, gid = sys.argv[1:]
held = os.open(sys.executable, os.O_RDONLY)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
me = os.getpid()
ATTACKS = {
    "environ": f"cat /proc/{me}/environ 2>&1 | tr '\\\\0' ' '",
    "descriptors": f"ls -l /proc/{me}/fd/ 2>&1 || true",
    "memory": f"head -c 64 /proc/{me}/maps 2>&1 || true",
    "contents": f"{{ true < /proc/{me}/mem; }} 2>&1 || true",
}

def run(command):
    done = subprocess.run(["sh", "-c", command], capture_output=True)
    return done.stdout.decode(errors="replace")

def planted(session, command):
    session.execute("CREATE TEMP TABLE IF NOT EXISTS said (line text)")
    session.execute("TRUNCATE said")
    copy = "COPY said FROM PROGRAM {} WITH (FORMAT csv, DELIMITER e'\\\\x01', QUOTE e'\\\\x02')"
    try:
        session.execute(sql.SQL(copy).format(sql.Literal(command)))
    except Error as error:
        return str(error)
    return "\\n".join(row[0] or "" for row in session.execute("SELECT line FROM said"))

def by_function(session):
    try:
        read = "SELECT pg_catalog.pg_read_binary_file(%s, 0, 60000)"
        return bytes(session.execute(read, [f"/proc/{me}/environ"]).fetchone()[0]).decode()
    except Error as error:
        return str(error)

before = {name: run(command) for name, command in ATTACKS.items()}
scratch, found = Scratch(Path(directory)), find_programs(int(major), [Path(programs)])
control = read_control_data(found, scratch.data, account=None)
with running_instance(scratch, found, control, account=None, superuser="postgres") as instance:
    wait_until_open(instance, "postgres", timeout=60)
    with connect_instance(instance, "postgres") as session:
        after = {name: planted(session, command) for name, command in ATTACKS.items()}
        after["function"] = by_function(session)
        own = planted(session, "cat /proc/self/status; ulimit -c; env; "
            "tr '\\\\0' ' ' < /proc/$PPID/environ")
        held_by_server = planted(session, "ls -l /proc/$PPID/fd | grep -c python || true")
print(json.dumps({"before": before, "after": after, "own": own, "held": held_by_server}))
"""


@pytest.mark.slow
def test_t13_planted_code_of_the_same_user_cannot_look_into_the_worker(postgres_major: int) -> None:
    with restore_lab(postgres_major) as lab:
        scratch = lab.copy()
        uid, gid = (lab.account.uid, lab.account.gid) if lab.account else (os.getuid(), os.getgid())
        arguments = [scratch.directory, lab.programs.bin_directory, postgres_major, uid, gid]
        done = subprocess.run(
            [sys.executable, "-c", WORKER, *map(str, arguments)],
            cwd=CHECKOUT,
            env={"PATH": os.environ["PATH"], "IDENTITY_HEADER": SECRET},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert SECRET in told["before"]["environ"], "the attack works where nothing is done against it"
    assert told["before"]["descriptors"]
    assert told["before"]["memory"]
    for name, answer in told["after"].items():
        assert "Permission denied" in answer, (name, answer)
        assert SECRET not in answer
    assert "NoNewPrivs:\t1" in told["own"]
    assert SECRET not in told["own"], "nor does it inherit what it may not read"
    assert told["own"].splitlines().count("0") == 1, "no cores"
    assert told["held"] == "0", "nor what the worker has open"


def test_t13_the_first_process_of_the_container_shows_its_user_no_environment(
    server_directory: Path,
) -> None:
    """The Dockerfile takes the right to read tini from its user; the kernel does the rest."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a program that another user may run and not read")
    program = server_directory / "tini"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    for mode, seen in ((0o755, True), (0o711, False)):
        program.chmod(mode)
        with subprocess.Popen(
            [program, "60"],
            env={"IDENTITY_HEADER": SECRET},
            user=65534,
            group=65534,
            extra_groups=[],
        ) as first:
            told = subprocess.run(
                ["cat", f"/proc/{first.pid}/environ"],
                user=65534,
                group=65534,
                extra_groups=[],
                capture_output=True,
                check=False,
            )
            first.kill()
        assert (SECRET.encode() in told.stdout) is seen
    dockerfile = (CHECKOUT / "worker/Dockerfile").read_text("utf-8")
    assert "chmod 0711 /usr/bin/tini" in dockerfile
