"""What stands in postgresql.auto.conf after a restore."""

import re
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    parse_time,
)
from shared.errors import RecoverySettingInvalid, ScratchRefused
from worker.postgres.recovery_settings import (
    AUTO_CONF,
    Recovery,
    neutralise,
    prepare_recovery,
    quote_setting,
    recovery_settings,
    settle_recovered,
)

TARGETS = {f"recovery_target{kind}" for kind in ("", "_name", "_time", "_xid", "_lsn")}
PRINTABLE = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]))
RECOVERY_TARGETS: st.SearchStrategy[RecoveryTarget] = st.one_of(
    st.builds(ToTime, st.datetimes(timezones=st.timezones()).filter(lambda at: 1 < at.year < 9999)),
    st.builds(ToLsn, st.integers(0, 2**64 - 1).map(Lsn), st.booleans()),
    st.builds(ToXid, st.integers(3, 2**32 - 1), st.booleans()),
    st.builds(ToName, PRINTABLE.filter(bool)),
    st.builds(ToImmediate),
    st.builds(ToLatest),
)


def unquote(literal: str) -> str:
    """What guc-file.l makes of a quoted value."""
    inner = literal[1:-1]
    return re.sub(r"\\(.)|('')", lambda found: found[1] or "'", inner)


def read(lines: list[str]) -> list[tuple[str, str]]:
    """Names and values, in the order in which PostgreSQL assigns them."""
    pairs = (line.split(" = ", 1) for line in lines)
    return [(name, unquote(literal)) for name, literal in pairs]


@given(PRINTABLE)
def test_quoting_keeps_every_printable_text(value: str) -> None:
    literal = quote_setting(value)

    assert unquote(literal) == value
    assert re.fullmatch(r"'(?:[^'\\\n]|\\.|'')*'", literal)


@pytest.mark.parametrize(
    "value", ["a\nb", "a\rb", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\ud800"]
)
def test_control_characters_are_rejected(value: str) -> None:
    with pytest.raises(RecoverySettingInvalid):
        quote_setting(value)


def test_the_copy_recovers_to_the_end_of_the_backup_and_archives_nothing() -> None:
    lines = recovery_settings(Recovery())

    assert "recovery_target = 'immediate'" in lines
    assert "recovery_target_action = 'promote'" in lines
    assert "recovery_target_timeline = 'current'" in lines
    assert "restore_command = 'false'" in lines
    assert "archive_mode = 'off'" in lines
    assert "archive_command = ''" in lines
    assert "primary_conninfo = ''" in lines


@given(RECOVERY_TARGETS, st.integers(1, 2**32 - 1), PRINTABLE.filter(bool))
def test_f6_exactly_one_target_is_set_and_the_others_are_cleared_before(
    target: RecoveryTarget, timeline: int, command: str
) -> None:
    """xlogrecovery.c refuses to clear a target after another one was set."""
    recovery = Recovery(target, timeline, TargetAction.PAUSE, command)

    found = read(recovery_settings(recovery))

    values = dict(found)
    assert len(values) == len(found)
    targets = [(name, value) for name, value in found if name in TARGETS]
    assert len(targets) == len(TARGETS)
    assert all(value == "" for _, value in targets[:-1])
    assert (targets[-1][1] == "") is isinstance(target, ToLatest)
    assert values["restore_command"] == command
    assert values["recovery_target_timeline"] == str(timeline)
    assert values["recovery_target_action"] == "pause"
    inclusive = getattr(target, "inclusive", True)
    assert values["recovery_target_inclusive"] == ("on" if inclusive else "off")
    if isinstance(target, ToTime):
        written = values["recovery_target_time"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00", written)
        # In UTC: Python never calls two zones' times equal in an hour that a clock change repeats.
        assert parse_time(f"{written}:00") == target.time.astimezone(UTC)


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (ToName("it's a \\ %n"), "recovery_target_name = 'it''s a \\\\ %n'"),
        (
            ToTime(parse_time("2026-11-22T10:00:00.5+01:00")),
            "recovery_target_time = '2026-11-22 09:00:00.500000+00'",
        ),
        (ToLsn(Lsn.parse("2F/A10000F8")), "recovery_target_lsn = '2F/A10000F8'"),
        (ToXid(81234), "recovery_target_xid = '81234'"),
        (ToXid((5 << 32) + 81234), "recovery_target_xid = '81234'"),
    ],
)
def test_a_target_is_written_as_postgresql_reads_it(target: RecoveryTarget, line: str) -> None:
    assert line in recovery_settings(Recovery(target, 2))


@pytest.mark.parametrize(
    "line",
    [
        "archive_command = 'touch /tmp/x'",
        "  Archive_Command='x'",
        "shared_preload_libraries = 'x'",
        "ssl_passphrase_command = 'x'",
        "primary_conninfo = 'host=x'",
        "recovery_target_time = 'x'",
        "include = '/tmp/x'",
        "include_if_exists '/tmp/x'",
        "listen_addresses = '*'",
        "hba_file = '/tmp/x'",
        "work_mem = 'unterminated",
        "work_mem = '1MB' archive_command = 'x'",
        "work_mem = '1MB'\x0carchive_command = 'x'",
        "work_mem = 1\x0b",
        "nonsense",
        "ignore_checksum_failure = on",
    ],
)
def test_a_dangerous_or_broken_line_is_commented_out(line: str) -> None:
    assert neutralise(line) == f"#pgkeep# {line}"


@pytest.mark.parametrize(
    "line",
    [
        "# Do not edit this file manually!",
        "",
        "work_mem = '64MB'",
        "work_mem 64MB",
        "random_page_cost = 1.1  # SSD",
        "pg_stat_statements.max = '5000'",
        "cluster_name = 'it''s \\'mine\\''",
        "log_line_prefix = 'größe %m '",
    ],
)
def test_a_harmless_line_stays(line: str) -> None:
    assert neutralise(line) == line


def test_preparing_twice_is_preparing_once(tmp_path: Path) -> None:
    (tmp_path / AUTO_CONF).write_bytes(
        b"work_mem = '8MB'\nlog_line_prefix = '\xff'\narchive_mode = on\n"
    )

    prepare_recovery(tmp_path, Recovery())
    once = (tmp_path / AUTO_CONF).read_bytes()
    prepare_recovery(tmp_path, Recovery())

    assert (tmp_path / AUTO_CONF).read_bytes() == once
    assert once.startswith(
        b"work_mem = '8MB'\nlog_line_prefix = '\xff'\n#pgkeep# archive_mode = on\n"
    )
    assert once.endswith(b"archive_library = ''\nprimary_conninfo = ''\nprimary_slot_name = ''\n")


def test_when_recovery_is_over_only_what_keeps_the_copy_apart_stays(tmp_path: Path) -> None:
    (tmp_path / AUTO_CONF).write_text("work_mem = '8MB'\n")
    prepare_recovery(tmp_path, Recovery(ToXid(81234), 2, restore_command="fetch %f %p"))

    settle_recovered(tmp_path)

    text = (tmp_path / AUTO_CONF).read_text()
    assert text.startswith("work_mem = '8MB'\n# written by pgkeep")
    assert "archive_mode = 'off'\n" in text
    assert "restore_command" not in text
    assert "recovery_target" not in text


def test_a_standby_becomes_a_recovery_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "standby.signal").touch()

    prepare_recovery(tmp_path, Recovery())

    assert not (tmp_path / "standby.signal").exists()
    assert (tmp_path / "recovery.signal").stat().st_mode & 0o777 == 0o600


def test_a_link_in_place_of_the_file_is_refused_and_its_target_untouched(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    (tmp_path / AUTO_CONF).symlink_to(elsewhere)

    with pytest.raises(ScratchRefused):
        prepare_recovery(tmp_path, Recovery())

    assert elsewhere.read_text() == "precious"


def test_a_planted_header_does_not_protect_what_follows_it(tmp_path: Path) -> None:
    (tmp_path / AUTO_CONF).write_text(
        "# written by pgkeep; later lines win\narchive_command = 'x'\n"
    )

    prepare_recovery(tmp_path, Recovery())

    assert "archive_command = 'x'" not in (tmp_path / AUTO_CONF).read_text()
