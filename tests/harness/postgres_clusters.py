"""PostgreSQL for tests: one shared source cluster per version, and clusters to throw away.

A test that uses `postgres_major`, by itself or through a fixture below, runs with version 17; with
`@pytest.mark.postgres` it runs once for each version that this machine has.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from local import postgres_programs
from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer, StopMode
from local.unprivileged import hand_over, make_reachable_directory, server_account
from tests.harness.sample_database import DATABASE, load_sample

DEFAULT_MAJOR = 17
# Settings that make a server of the tests start fast and stay small, without a change in what a
# backup of it looks like.
_SMALL = {"shared_buffers": "16MB", "max_connections": "40", "autovacuum": "off"}
_THROW_AWAY = ClusterOptions(fsync=False, settings=_SMALL)

MakeCluster = Callable[..., PostgresServer]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise by version; a test marked `postgres` for which there is none does not pass."""
    if "postgres_major" not in metafunc.fixturenames:
        return
    marked = next(metafunc.definition.iter_markers("postgres"), None) is not None
    majors = postgres_programs.available_majors() if marked else []
    majors = majors or [DEFAULT_MAJOR]
    ids = [f"pg{major}" for major in majors]
    metafunc.parametrize("postgres_major", majors, indirect=True, scope="session", ids=ids)


@pytest.fixture(scope="session")
def postgres_major(request: pytest.FixtureRequest) -> int:
    """The version that this test runs with."""
    major: int = request.param
    return major


@pytest.fixture(scope="session")
def postgres_bin(postgres_major: int) -> Path:
    """The folder of that version's programs."""
    return programs_of(postgres_major)


@pytest.fixture(scope="session")
def _source_cluster_of() -> Iterator[Callable[[int], PostgresServer]]:
    """Kept apart from `source_cluster`, which pytest makes anew whenever the version changes."""
    with ExitStack() as at_the_end:

        @cache
        def start(major: int) -> PostgresServer:
            server = _start(major, _THROW_AWAY, at_the_end)
            load_sample(server.dsn(), server.dsn(DATABASE))
            return server

        yield start


@pytest.fixture(scope="session")
def source_cluster(
    postgres_major: int, _source_cluster_of: Callable[[int], PostgresServer]
) -> PostgresServer:
    """A running server with the sample database `app`, shared by all tests of this process.

    Add to it what you like; do not stop it, and leave the sample's rows alone.
    """
    return _source_cluster_of(postgres_major)


@pytest.fixture
def server_directory() -> Iterator[Path]:
    """A directory that PostgreSQL's account can enter, which `tmp_path` is not when we are root."""
    with ExitStack() as at_the_end:
        yield _temporary_directory(at_the_end)


@pytest.fixture
def make_cluster(postgres_major: int) -> Iterator[MakeCluster]:
    """`make_cluster(options=ClusterOptions(…))`: a running server of this test alone, empty.

    fsync is off, whatever the options say; call it as often as you need servers.
    """
    with ExitStack() as at_the_end:

        def make(options: ClusterOptions = _THROW_AWAY) -> PostgresServer:
            settings = {**_SMALL, **options.settings}
            quick = replace(options, fsync=False, settings=settings)
            return _start(postgres_major, quick, at_the_end)

        yield make


def programs_of(major: int) -> Path:
    """Fails the test that needs a version which this machine lacks."""
    programs = postgres_programs.find(major)
    if programs is None:
        pytest.fail(f"PostgreSQL {major} is not installed: run `make setup`")
    return programs


def make_standby(primary: PostgresServer, directory: Path) -> PostgresServer:
    """A copy of the primary that follows it once it is started; in a new `directory`."""
    directory.mkdir()
    directory.chmod(0o711)
    subprocess.run(
        [
            *(primary.programs / "pg_basebackup", "-d", primary.dsn(), "-D", directory / "data"),
            *("-R", "-X", "stream", "-c", "fast", "--no-sync"),
        ],
        check=True,
        capture_output=True,
        env={"LC_ALL": "C"},
    )
    hand_over(directory / "data", server_account())
    return PostgresServer(primary.programs, directory, primary.passwords)


def _start(major: int, options: ClusterOptions, at_the_end: ExitStack) -> PostgresServer:
    directory = _temporary_directory(at_the_end)
    server = PostgresServer.create(programs_of(major), directory, options)
    at_the_end.callback(server.stop, StopMode.IMMEDIATE)
    server.start()
    return server


def _temporary_directory(at_the_end: ExitStack) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="pgkeep-test-"))
    at_the_end.callback(shutil.rmtree, directory)
    make_reachable_directory(directory, server_account())
    return directory
