"""A throw-away server on a restored directory: contained, measured, stopped, swept."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local import postgres_programs
from shared.domain.lsn import Lsn
from shared.domain.recovery_target import (
    RecoveryTarget,
    TargetAction,
    ToImmediate,
    ToLatest,
    ToLsn,
    ToName,
    ToTime,
    ToXid,
)
from shared.errors import (
    InstanceLacksLibrary,
    InstanceNotStarted,
    InstanceStarved,
    InstanceTimeout,
    ProgramFailed,
    ProgramMissing,
    ProgramTimeout,
    ScratchRefused,
)
from tests.harness.restore_lab import LIMIT_S, NOW, RestoreLab, flip_byte, restore_lab
from worker.postgres.instance import (
    Instance,
    connect_instance,
    stop_at_once,
    stop_cleanly,
    wait_until_open,
)
from worker.postgres.programs import (
    account_named,
    find_programs,
    parse_control_data,
    run_program,
)
from worker.postgres.recovery_settings import (
    AUTO_CONF,
    Recovery,
    prepare_recovery,
    setting_lines,
)
from worker.postgres.scratch import (
    MARKER,
    Scratch,
    make_scratch,
    remove_scratch,
    sweep_leftovers,
)

pytestmark = [pytest.mark.integration, pytest.mark.postgres]


@pytest.fixture(
    scope="module", params=postgres_programs.available_majors(), ids="postgres{}".format
)
def lab(request: pytest.FixtureRequest) -> Iterator[RestoreLab]:
    with restore_lab(request.param) as ready:
        yield ready


@pytest.fixture(scope="module")
def shop(lab: RestoreLab) -> Iterator[Instance]:
    with lab.opened() as instance:
        yield instance


def test_a_hostile_configuration_runs_nothing_and_does_not_stop_the_start(lab: RestoreLab) -> None:
    scratch = lab.copy()
    trap = scratch.tablespaces / "trap"
    hostile = f"""
archive_mode = 'always'
archive_command = 'touch {trap}'
archive_cleanup_command = 'touch {trap}'
recovery_end_command = 'touch {trap}'
restore_command = 'touch {trap}; false'
shared_preload_libraries = 'nonexistent'
session_preload_libraries = 'nonexistent'
primary_conninfo = 'host=192.0.2.1'
listen_addresses = '*'
hba_file = '/nonexistent'
ssl = 'on'
include = '/nonexistent'
shared_buffers = '900GB'
max_connections = '1'
logging_collector = 'on'
synchronous_standby_names = '*'
cluster_name = 'as it was'
broken 'line
"""
    (scratch.data / AUTO_CONF).write_text(hostile)
    (scratch.data / "postgresql.conf").write_text("syntax error '")
    (scratch.data / "pg_hba.conf").write_text("local all all reject\n")
    (scratch.data / "standby.signal").touch()
    prepare_recovery(scratch.data, Recovery())

    with lab.instance(scratch) as instance:
        wait_until_open(instance, "postgres", timeout=LIMIT_S)
        with connect_instance(instance, "postgres") as sql:
            sql.execute("CREATE TABLE public.filler AS SELECT generate_series(1, 9)")
            sql.execute("SELECT pg_switch_wal()")
            sql.execute("CHECKPOINT")
            settings_shown = sql.execute("SELECT name, setting FROM pg_settings").fetchall()
            shown: dict[str, str] = dict(settings_shown)
        assert stop_cleanly(instance)

    assert not trap.exists()
    assert shown["archive_mode"] == "off"
    assert shown["archive_command"] in {"", "(disabled)"}
    assert shown["shared_preload_libraries"] == shown["session_preload_libraries"] == ""
    assert shown["listen_addresses"] == shown["primary_conninfo"] == ""
    assert shown["max_connections"] == "137"
    assert shown["cluster_name"] == "as it was"


def test_nothing_listens_on_a_network_and_the_socket_is_private(lab: RestoreLab) -> None:
    with lab.opened() as instance, connect_instance(instance, "postgres") as sql:
        shown = sql.execute("SHOW listen_addresses").fetchone()
        mode = instance.scratch.socket.stat().st_mode & 0o777

    assert shown == ("",)
    assert mode == 0o700


def test_a_broken_control_file_is_said_before_the_start(lab: RestoreLab) -> None:
    scratch = lab.copy()
    flip_byte(scratch.data / "global" / "pg_control", 100)

    with pytest.raises(ProgramFailed, match="checksum"), lab.instance(scratch):
        pass


def lacks_wal(scratch: Scratch) -> None:
    for segment in (scratch.data / "pg_wal").glob("0*"):
        segment.unlink()


def lacks_version(scratch: Scratch) -> None:
    (scratch.data / "PG_VERSION").write_text("9.6\n")


def lacks_transactions(scratch: Scratch) -> None:
    shutil.rmtree(scratch.data / "pg_xact")


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lacks_wal, InstanceNotStarted, "could not locate required checkpoint record"),
        (lacks_version, InstanceLacksLibrary, "incompatible with server"),
        (lacks_transactions, InstanceNotStarted, "pg_xact"),
    ],
)
def test_a_server_that_cannot_start_says_why_at_once(
    lab: RestoreLab, damage: Callable[[Scratch], None], error: type[Exception], words: str
) -> None:
    scratch = lab.copy()
    damage(scratch)

    with lab.instance(scratch) as instance, pytest.raises(error, match=words) as caught:
        wait_until_open(instance, "postgres", timeout=LIMIT_S)

    assert type(caught.value) is error
    assert not instance.running


def test_a_library_that_recovery_needs_is_told_apart_from_bad_data(lab: RestoreLab) -> None:
    scratch = lab.copy()
    with (scratch.data / AUTO_CONF).open("a") as auto_conf:
        auto_conf.write("log_timezone = 'Mars/Olympus'\n")

    with lab.instance(scratch) as instance, pytest.raises(InstanceLacksLibrary):
        wait_until_open(instance, "postgres", timeout=LIMIT_S)


def test_a_host_short_of_memory_is_told_apart_from_bad_data(lab: RestoreLab) -> None:
    scratch = lab.copy()
    with lab.instance(scratch) as instance:
        instance.process.send_signal(signal.SIGKILL)
        instance.process.wait(LIMIT_S)
        with pytest.raises(InstanceStarved):
            wait_until_open(instance, "postgres", timeout=LIMIT_S)


def test_a_server_that_takes_too_long_is_a_timeout(lab: RestoreLab) -> None:
    with lab.instance(lab.copy()) as instance, pytest.raises(InstanceTimeout):
        wait_until_open(instance, "postgres", timeout=0)


printable = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]) | st.sampled_from("'\\\"#$%= "),
    max_size=60,
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=st.lists(printable, min_size=20, max_size=60))
def test_postgresql_reads_back_exactly_what_was_quoted(shop: Instance, values: list[str]) -> None:
    lines = setting_lines({f"pgkeep.v{number}": value for number, value in enumerate(values)})
    (shop.scratch.data / AUTO_CONF).write_text("\n".join(lines) + "\n", "utf-8")

    with connect_instance(shop, "postgres") as sql:
        rows = sql.execute(
            "SELECT setting, error FROM pg_file_settings WHERE name LIKE 'pgkeep.v%' ORDER BY seqno"
        ).fetchall()

    assert rows == [(value, None) for value in values]


HALF_PAST_NINE = datetime(2026, 11, 22, 9, 30, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("target", "name", "value"),
    [
        (ToTime(HALF_PAST_NINE), "recovery_target_time", "2026-11-22 09:30:00.500000+00"),
        (ToLsn(Lsn.parse("2F/A10000F8"), inclusive=False), "recovery_target_inclusive", "off"),
        (ToXid(2**32 - 1), "recovery_target_xid", "4294967295"),
        (ToName("it's %n \\ done"), "recovery_target_name", "it's %n \\ done"),
        (ToImmediate(), "recovery_target", "immediate"),
        (ToLatest(), "recovery_target_timeline", "7"),
    ],
)
def test_f6_postgresql_takes_what_is_written_for_every_kind_of_target(
    lab: RestoreLab, target: RecoveryTarget, name: str, value: str
) -> None:
    data = lab.copy().data
    prepare_recovery(data, Recovery(target, 7, TargetAction.PAUSE, "'a b'/fetch %f \"%p\" %%"))

    # Stops with an error when any line of the files is not to PostgreSQL's liking.
    def shown(parameter: str) -> str:
        arguments = [lab.programs.path("postgres"), "-D", str(data), "-C", parameter]
        done = run_program(arguments, timeout=LIMIT_S, account=lab.account)
        assert done.status == 0, done.errors
        return done.output.rstrip("\n")

    assert shown(name) == value
    assert shown("restore_command") == "'a b'/fetch %f \"%p\" %%"


def test_a_leftover_of_a_crash_is_stopped_and_swept(lab: RestoreLab) -> None:
    leftover, young, foreign = (lab.copy("crashed") for _ in range(3))
    (young.directory / MARKER).write_text(
        f'{{"label": "crashed", "created": "{(NOW + timedelta(days=2)).isoformat()}"}}'
    )
    (foreign.directory / MARKER).write_text(f'{{"label": "other", "created": "{NOW.isoformat()}"}}')
    unmarked = lab.root / "precious"
    unmarked.mkdir()
    with lab.instance(leftover) as instance:
        wait_until_open(instance, "postgres", timeout=LIMIT_S)

        swept = sweep_leftovers(lab.root, "crashed", older_than=NOW + timedelta(days=1))

        assert instance.process.wait(LIMIT_S) is not None

    assert leftover.directory in swept
    assert not leftover.directory.exists()
    assert all(path.exists() for path in (young.directory, foreign.directory, unmarked))


def test_sweeping_spares_a_process_that_got_the_number_of_an_old_server(lab: RestoreLab) -> None:
    scratch = lab.copy("crashed")
    with subprocess.Popen(["sleep", "60"]) as bystander:
        try:
            (scratch.data / "postmaster.pid").write_text(f"{bystander.pid}\n{scratch.data}\n")

            sweep_leftovers(lab.root, "crashed", older_than=NOW + timedelta(days=1))

            assert not scratch.directory.exists()
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_a_path_too_long_for_a_socket_is_refused_before_anything_is_made(lab: RestoreLab) -> None:
    with pytest.raises(ScratchRefused, match="bytes"):
        make_scratch(lab.root, "lab", token="x" * 100, now=NOW, account=lab.account)

    assert not (lab.root / ("x" * 100)).exists()


def test_a_scratch_that_cannot_be_made_or_removed_is_refused(lab: RestoreLab) -> None:
    name = "twice"
    scratch = make_scratch(lab.root, "lab", token=name, now=NOW, account=lab.account)
    with pytest.raises(ScratchRefused):
        make_scratch(lab.root, "lab", token=name, now=NOW, account=lab.account)
    remove_scratch(scratch)

    with pytest.raises(ScratchRefused):
        remove_scratch(scratch)


def test_stopping_what_has_stopped_is_harmless(lab: RestoreLab) -> None:
    with lab.opened() as instance:
        stop_at_once(instance)
        stop_at_once(instance)

        assert not stop_cleanly(instance)


def test_programs_of_another_major_are_not_taken(lab: RestoreLab) -> None:
    with pytest.raises(ProgramMissing, match="PostgreSQL 9 programs"):
        find_programs(9, [lab.programs.bin_directory])


def test_a_program_that_does_not_end_is_killed() -> None:
    with pytest.raises(ProgramTimeout):
        run_program(["/bin/sleep", "60"], timeout=0.1)


def test_a_program_that_is_not_there_is_missing() -> None:
    with pytest.raises(ProgramMissing):
        run_program(["/nonexistent/postgres"], timeout=1)


def test_programs_see_no_postgresql_variables_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere.invalid")

    assert "PG" not in run_program(["/usr/bin/env"], timeout=5).output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another account")
def test_programs_run_as_the_account_and_never_as_root() -> None:
    account = account_named(None)
    assert account is not None

    output = run_program(["/usr/bin/id"], timeout=5, account=account).output

    assert f"uid={account.uid}" in output
    assert "root" not in output
    with pytest.raises(ScratchRefused):
        account_named("root")


def test_control_data_that_is_none_is_refused() -> None:
    with pytest.raises(ProgramFailed, match="Catalog version number"):
        parse_control_data("nonsense")


def test_a_session_of_the_copy_says_so(shop: Instance) -> None:
    with connect_instance(shop, "postgres", options=["-c work_mem=7MB"]) as sql:
        shown = sql.execute("SELECT current_setting('work_mem'), current_setting('jit')").fetchone()

    assert shown == ("7MB", "off")
    assert isinstance(sql, psycopg.Connection)


def test_a_link_planted_in_the_scratch_directory_is_not_followed(lab: RestoreLab) -> None:
    scratch = lab.copy()
    precious = lab.root / "precious.txt"
    precious.write_text("precious")
    for name in ("pg_hba.conf", "server.log"):
        (scratch.directory / name).symlink_to(precious)

    scratch.write("pg_hba.conf", "ours", lab.account)
    with pytest.raises(OSError, match="symbolic links"):
        scratch.open_log()

    assert precious.read_text() == "precious"
    assert (scratch.directory / "pg_hba.conf").read_text() == "ours"
