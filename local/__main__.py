"""`python -m local`: the product on one machine. `up` and `down` for development, `demo` to see it.

Ctrl-C and SIGTERM end everything that was started, in order; a second one is not heard meanwhile.
"""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from functions.callers import Role
from local import stack, stack_directory
from local.access_tokens import sign_token
from local.benchmark.command import benchmark
from local.configuration import DATABASE
from local.demo import run_demo
from local.document_database.heartbeat import beating
from local.document_database.load import load
from local.processes import CHECKOUT, Program, wait_until
from local.rpo.command import rpo
from local.stack_directory import START_LOG, StackDirectory
from shared.errors import NotFound, PgkeepError, Unavailable

# As in production: the dispatcher each minute, the watch over WAL every five, the reconciler each
# hour.
SCHEDULES = {
    "PGKEEP_DISPATCH_SCHEDULE": "0 * * * * *",
    "PGKEEP_FRESHNESS_SCHEDULE": "0 */5 * * * *",
    "PGKEEP_RECONCILE_SCHEDULE": "0 0 * * * *",
}
ENDPOINTS = "endpoints.json"
_DETACH_S = 120.0
_LOOK_EVERY_S = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

app = typer.Typer(
    name="python -m local",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Azure on one machine: PostgreSQL, Azurite, a Functions host and a worker.",
)
Directory = Annotated[Path, typer.Option("--dir", help="Folder of the stack; `up` empties it.")]
Megabytes = Annotated[int, typer.Option(min=1, help="Size of the document database.")]


class StackDidNotStart(Unavailable):
    """`up --detach` gave up on the process it had started."""

    code = "stack-did-not-start"
    hint = "Run `up` without --detach to watch it."


class NoStackHere(NotFound):
    """A folder in which no stack was ever started."""

    code = "stack-absent"
    hint = "Start one with `python -m local up --dir DIR`."


@app.command()
def up(
    dir: Directory,  # noqa: A002 - the option's name
    *,
    json_output: Annotated[bool, typer.Option("--json", help="Print the endpoints.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return when it is up.")] = False,
    megabytes: Megabytes = 16,
) -> None:
    """Start a stack and hold it until Ctrl-C, or, with --detach, until `down`."""
    if detach:
        _print_endpoints(_start_in_background(dir.absolute(), megabytes), as_json=json_output)
        return
    with (
        interruptible(),
        stack_directory.claimed(dir) as directory,
        stack.running_servers(directory) as servers,
    ):
        database = servers.source.dsn(DATABASE)
        load(database, megabytes)
        with beating(database), stack.running_edges(directory, servers, SCHEDULES) as edges:
            found = stack.endpoints(directory, servers, edges)
            _publish(directory.root / ENDPOINTS, found)
            _print_endpoints(found, as_json=json_output)
            _hold(edges)


@app.command()
def down(dir: Directory) -> None:  # noqa: A002 - the option's name
    """End the stack of a folder; nothing happens when there is none."""
    print("ended" if stack_directory.end(dir.absolute()) else "no stack runs there")


@app.command()
def demo(
    dir: Directory = Path(".demo"),  # noqa: A002 - the option's name
    *,
    megabytes: Megabytes = 300,
) -> None:
    """The main job on real parts: back up, lose a table, recover it. Exit 0 only when proven."""
    with interruptible():
        if not run_demo(dir, megabytes):
            raise typer.Exit(1)


@app.command()
def token(
    dir: Directory,  # noqa: A002 - the option's name
    role: Annotated[list[Role], typer.Option("--role", help="May be given more than once.")],
    *,
    name: Annotated[str, typer.Option(help="Who calls; another name is another person.")] = "local",
    hours: Annotated[float, typer.Option(min=0.01, max=24, help="How long it is valid.")] = 8,
) -> None:
    """Print a token for the HTTP interface of the stack in a folder."""
    key = StackDirectory(dir.absolute(), dir.absolute()).access_key
    if not key.exists():
        raise NoStackHere(f"{dir} holds no key that signs tokens")
    now, lifetime = datetime.now(UTC), timedelta(hours=hours)
    print(sign_token(key, name=name, roles=role, now=now, lifetime=lifetime))


app.command()(benchmark)
app.command()(rpo)


@contextmanager
def interruptible() -> Iterator[None]:
    """A signal raises KeyboardInterrupt, once, so that every block is left in order; exit 130."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Exit status as the errors say; typer speaks for wrong arguments."""
    try:
        app()
    except PgkeepError as error:
        print(f"local: {error}\nHINT: {error.advice}", file=sys.stderr)
        sys.exit(error.exit_status)


def _hold(edges: stack.Edges) -> None:
    """Until a signal comes, which is a good end, or a program of the stack has ended."""
    pause = threading.Event()
    try:
        while not pause.wait(_LOOK_EVERY_S):
            edges.check()
    except KeyboardInterrupt:
        return


def _start_in_background(root: Path, megabytes: int) -> dict[str, str]:
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "local", "up", "--dir", str(root)]
    log, published = root / START_LOG, root / ENDPOINTS
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--megabytes", str(megabytes)],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    holder = Program(process, log)
    if not wait_until(lambda: _is_up(root, process), _DETACH_S):
        process.terminate()
    if process.poll() is not None:
        raise StackDidNotStart(f"the stack in {root} did not start: {holder.last_words()}")
    found: dict[str, str] = json.loads(published.read_text("utf-8"))
    return found


def _is_up(root: Path, process: subprocess.Popen[bytes]) -> bool:
    """The endpoints are those of this process, or it has ended."""
    holder = stack_directory.running_in(root)
    published = (root / ENDPOINTS).exists()
    ours = holder is not None and holder.pid == process.pid
    return process.poll() is not None or (ours and published)


def _publish(path: Path, found: dict[str, str]) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(found, indent=2), "utf-8")
    draft.replace(path)


def _print_endpoints(found: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=2), flush=True)
        return
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:<{width}}  {value}")
    print(f"\nTry:  .venv/bin/python -m worker list --config {found['config']}", flush=True)


if __name__ == "__main__":
    main()
