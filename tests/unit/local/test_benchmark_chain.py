"""Chains: medians of runs, ratios within a round, and the disk at its fullest."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from local.benchmark.chain.contender import together
from local.benchmark.chain.disk import DiskPeak, allocated
from local.benchmark.chain.pgbackrest import copies_whole_files
from local.benchmark.chain.report import ChainReport, Key, Measured, Step, chain_report
from local.benchmark.measure import Usage
from local.benchmark.printed import print_report
from local.benchmark.report import disturbed
from tests.harness.deadline import wait_until
from tests.unit.local.test_benchmark_report import report

OURS, PEER = "pgkeep", "fetch + pg_combinebackup"
MEBIBYTE = 1 << 20


def took(wall: float, *, peak: int | None = None, **more: int) -> Measured:
    usage = Usage(wall, {"tool": 2.0, "azurite": 1.0}, 100.0 + wall)
    return Measured(usage, disk_peak_bytes=peak, result_bytes=1000 if peak else None, **more)


def restored() -> ChainReport:
    """Three rounds; the machine was slow in the second."""
    measured: dict[Key, list[Measured]] = {
        (OURS, Step.FULL): [took(9, stored_bytes=400_000_000)],
        (OURS, Step.ONE_PERCENT): [took(1, stored_bytes=n * 1_000_000) for n in (4, 9, 5)],
        (OURS, Step.RESTORE_FULL): [took(4), took(12), took(5)],
        (OURS, Step.RESTORE_CHAIN): [took(5, peak=1010), took(12, peak=1040), took(5, peak=1020)],
        (PEER, Step.RESTORE_CHAIN): [took(10, peak=2100), took(20, peak=2100), took(8, peak=2100)],
    }
    return chain_report(1_000_000_000, measured, {OURS: "17.10"})


def test_a_row_has_medians_and_the_worst_of_what_must_not_run_out() -> None:
    rows = {row.name: row for row in restored().rows}
    chain = rows["pgkeep: restore of 1 + 6"]
    assert (chain.wall_s, chain.walls_s, chain.cpu_s) == (5, (5, 12, 5), 3)
    assert (chain.peak_rss_mib, chain.disk) == (112, 1.04)
    assert rows["pgkeep: incremental, 1 % changed"].stored_bytes == 5_000_000


def test_ratios_compare_what_ran_in_the_same_round() -> None:
    result = restored()
    assert result.over_full == {OURS: 1.0}  # 5/4, 12/12, 5/5
    assert result.over_peer == {PEER: 0.6}  # 5/10, 12/20, 5/8


def test_commands_that_ran_one_after_the_other_add_up() -> None:
    first = Usage(1, {"tool": 1, "azurite": 2}, 50, 0.25)
    total = together([first, Usage(2, {"tool": 3}, 40), Usage(3, {"tool": 4}, 60)])
    assert total == Usage(6, {"tool": 8, "azurite": 2}, 60, 0.25)


def test_the_disk_is_seen_at_its_fullest_and_not_only_at_the_end(tmp_path: Path) -> None:
    scratch = tmp_path / "folder" / "scratch"
    scratch.parent.mkdir()
    with DiskPeak(tmp_path) as disk:
        scratch.write_bytes(b"x" * MEBIBYTE)
        wait_until(lambda: disk.peak_bytes >= MEBIBYTE, 20, "the file is seen")
        scratch.unlink()
    assert MEBIBYTE <= disk.peak_bytes < 2 * MEBIBYTE


def test_a_hole_takes_no_disk(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(64 * MEBIBYTE)
    assert allocated(tmp_path) < MEBIBYTE
    (tmp_path / "dense").write_bytes(b"x" * MEBIBYTE)
    assert MEBIBYTE <= allocated(tmp_path) < 2 * MEBIBYTE


@pytest.mark.parametrize("version", ["2.45", "2.9"])
def test_releases_before_block_incrementals_are_known(version: str) -> None:
    assert copies_whole_files(version)
    assert not copies_whole_files("2.46")
    assert not copies_whole_files("2.52.1")


def test_people_read_sizes_the_disk_and_both_ratios() -> None:
    screen = StringIO()
    with_chain = report().model_copy(update={"chain": restored()})
    print_report(with_chain, Console(file=screen, width=120))
    for words in (
        "Chain: incremental, 1 % changed",
        "1.04",
        "pgkeep: 1 + 6 in 1.00 of the time of its full alone",
        f"pgkeep: 1 + 6 in 0.60 of the time of {PEER}",
        "pgkeep 17.10",
    ):
        assert words in screen.getvalue()
    assert '"over_full":{"pgkeep":1.0}' in with_chain.model_dump_json()


def test_rows_of_chains_that_others_disturbed_are_named_too() -> None:
    usage = Usage(6, {"tool": 10}, 1, foreign_cpu_s=0.6)
    noisy = chain_report(1, {(OURS, Step.FULL): [Measured(usage)]}, {OURS: "17.10"})
    assert disturbed(noisy.rows) == ["pgkeep: full backup"]
