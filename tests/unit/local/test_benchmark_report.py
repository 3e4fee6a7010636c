"""Ratios compare like with like, the best run counts, and the report is the documented JSON."""

import json
from datetime import UTC, datetime
from io import StringIO

import pytest
from rich.console import Console

from local.benchmark import pgbackrest
from local.benchmark.contest import NoCommonPostgres, choose_major
from local.benchmark.measure import Usage
from local.benchmark.printed import print_report
from local.benchmark.report import (
    Machine,
    Operation,
    Ratio,
    Report,
    Row,
    disturbed,
    make_row,
)

SIZE = 1_500_000_000


def usage(wall: float, cpu: float = 4.0, rss: float = 100.0) -> Usage:
    return Usage(wall, {"tool": cpu, "azurite": 1.0}, rss)


def report(*rows: Row) -> Report:
    machine = Machine(processor="EPYC", cores=2, memory_gib=24, system="Linux", load_before=0.1)
    return Report(
        date=datetime(2026, 11, 22, tzinfo=UTC),
        machine=machine,
        versions={"pgkeep": "0.1.0"},
        size_bytes=SIZE,
        runs=1,
        rows=rows,
        remarks=("pgBackRest is not on this machine, so nothing is compared with it",),
    ).compared()


def row(tool: str, operation: Operation, wall: float, cpu: float = 4.0) -> Row:
    return make_row(tool, operation, [usage(wall, cpu)], SIZE)


def ratios(result: Report, name: str) -> dict[str, Ratio]:
    return next(item.ratios for item in result.rows if item.name == name)


def test_the_fastest_run_counts_but_the_largest_memory() -> None:
    runs = [usage(9, 5, rss=80), usage(6, 3, rss=70), usage(7, 2, rss=90)]
    best = make_row("pgkeep", Operation.BACKUP, runs, SIZE, stored_bytes=7)
    assert (best.name, best.wall_s, best.cpu_s, best.peak_rss_mib) == ("pgkeep backup", 6, 4, 90)
    assert (best.cpu_by_s, best.mb_per_s) == ({"tool": 3, "azurite": 1}, 250)
    assert best.stored_bytes == 7


def test_a_ratio_is_ours_over_the_peers() -> None:
    ours = row("pgkeep", Operation.BACKUP, 6, cpu=5)
    result = report(ours, row("pgBackRest", Operation.BACKUP, 12, cpu=3))
    assert ratios(result, "pgkeep backup") == {"pgBackRest": Ratio(wall=0.5, cpu=1.5)}
    assert ratios(result, "pgBackRest backup")["pgkeep"].wall == 2


def test_backups_are_compared_with_backups_and_with_compression_alone() -> None:
    result = report(
        row("zstd", Operation.COMPRESSION, 3),
        row("pgkeep", Operation.BACKUP, 6),
        row("pgkeep", Operation.RESTORE, 4),
        row("pgBackRest", Operation.RESTORE, 8),
    )
    assert set(ratios(result, "pgkeep backup")) == {"zstd"}
    assert set(ratios(result, "pgkeep restore")) == {"pgBackRest"}
    assert not ratios(result, "zstd compression")


def test_rows_that_others_disturbed_are_named() -> None:
    quiet = make_row("quiet", Operation.BACKUP, [Usage(6, {"tool": 10}, 1, 0.4)], SIZE)
    noisy = make_row("noisy", Operation.BACKUP, [Usage(6, {"tool": 10}, 1, 0.6)], SIZE)
    assert disturbed([quiet, noisy]) == ["noisy backup"]


def test_the_file_has_the_documented_fields() -> None:
    result = report(row("pgkeep", Operation.BACKUP, 6), row("pgBackRest", Operation.BACKUP, 9))
    document = json.loads(result.model_dump_json())
    assert {"machine", "date", "versions", "size_bytes", "rows"} <= set(document)
    first = document["rows"][0]
    assert {"name", "wall_s", "cpu_s", "peak_rss_mib", "ratios"} <= set(first)
    assert first["ratios"]["pgBackRest"] == {"wall": 0.667, "cpu": 1.0}


def test_the_table_names_every_tool_and_what_was_left_out() -> None:
    screen = StringIO()
    result = report(row("pgkeep", Operation.BACKUP, 6), row("pg_basebackup", Operation.BACKUP, 3))
    print_report(result, Console(file=screen, width=120))
    for words in ("pgkeep", "pg_basebackup", "2.00 of the time", "pgBackRest is not on this"):
        assert words in screen.getvalue()


@pytest.mark.parametrize(
    ("available", "peer", "chosen"),
    [
        ([15, 17, 18], None, 17),
        ([15, 17, 18], "2.45", 15),
        ([15, 16, 17], "2.50", 16),
        ([15, 17], "2.58.0", 17),
    ],
)
def test_the_newest_version_that_all_support_is_measured(
    available: list[int], peer: str | None, chosen: int
) -> None:
    assert choose_major(available, peer) == chosen


def test_no_version_in_common_is_an_error_that_names_the_installed_ones() -> None:
    with pytest.raises(NoCommonPostgres, match=r"\[17, 18\] is at most 15"):
        choose_major([17, 18], "2.45")


@pytest.mark.parametrize(
    ("version", "major"), [("2.30", 0), ("2.45", 15), ("2.52.1", 17), ("2.60.0", 18)]
)
def test_a_release_of_pgbackrest_knows_the_versions_of_its_time(version: str, major: int) -> None:
    assert pgbackrest.newest_major(version) == major
