"""Restored chains beside pg_combinebackup's result, and before pg_verifybackup, pg_amcheck, dumps.

The scenarios are those of PostgreSQL's own tests of pg_combinebackup: 002_compare_backups,
004_manifest, 006_db_file_copy and 011_ib_truncation. Each link of one chain does many of them.
"""

import os
from functools import partial
from pathlib import Path

import pytest

from shared.domain.backup import BackupKind
from tests.harness.chain_lab import (
    BLOCK,
    ChainLab,
    Link,
    block_of,
    chain_lab,
    check_with_amcheck,
    differences,
    discard,
    truncation_length,
)
from tests.harness.chain_random import RandomWork
from tests.harness.chain_workloads import REGROWN, STAGES, make_tablespaces, perform
from worker.keys.generate import KeySet

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MAJORS = (17, 18)
COME_BACK = 3  # the stage at which blocks come back
LINKS, STATEMENTS = 5, 12  # of a random chain; before each of its backups
MUCH_WAL = 100_000  # bytes of it, while a backup runs
SEGMENT = 1 << 30  # bytes of a relation's file before the next begins (RELSEG_SIZE)


@pytest.mark.parametrize("major", MAJORS)
def test_c06_each_link_of_an_eventful_chain_restores_to_what_pg_combinebackup_makes(
    major: int, key_set: KeySet, roomy_place: Path
) -> None:
    with chain_lab(major, key_set, roomy_place) as lab:
        make_tablespaces(lab.source, lab.place)
        links: list[Link] = []
        for stage in STAGES:
            perform(lab.source, stage)
            links.append(lab.take(BackupKind.INCREMENTAL if links else BackupKind.FULL))
            if len(links) == COME_BACK + 1:
                assert_blocks_came_back(lab, links)
        with lab.restored(links[0]) as ours:
            assert differences(ours, lab.combined(links[0])) == {}
        for depth, oracle in enumerate(lab.combined_pairwise(*links), 1):
            with lab.restored(links[depth]) as ours:
                assert differences(ours, oracle) == {}, STAGES[depth].name
                if depth in {COME_BACK, len(STAGES) - 1}:
                    assert_one_run_makes_the_same(lab, ours, *links[: depth + 1])
                if depth % 2:
                    lab.judge(links[depth], ours)


def assert_blocks_came_back(lab: ChainLab, links: list[Link]) -> None:
    """The first link cut off blocks that the full holds; now the file has them, empty."""
    path = lab.relation(REGROWN)
    full, first, *_, newest = (lab.raw(link) for link in links)
    last = truncation_length(newest, path) - 1
    assert truncation_length(first, path) <= last < (full / path).stat().st_size // BLOCK
    assert any(block_of(full / path, last))
    assert not any(block_of(lab.source.data / path, last))


def assert_one_run_makes_the_same(lab: ChainLab, ours: Path, *links: Link) -> None:
    """Where the server has empty blocks, one run may find older ones (docs/decisions/0017)."""
    combined = lab.combined(*links)
    for path, blocks in differences(ours, combined).items():
        assert [block for block in blocks if any(block_of(ours / path, block))] == [], path
    discard(combined)


def test_c06_a_relation_is_cut_off_in_its_second_segment_and_then_in_its_first(
    key_set: KeySet, roomy_place: Path
) -> None:
    """011_ib_truncation: truncation lengths count within a segment, and VM forks have their own."""
    with chain_lab(MAJORS[0], key_set, roomy_place) as lab:
        second = lab.source.data / f"{make_long_relation(lab)}.1"
        links, sizes = [lab.take(BackupKind.FULL)], [second.stat().st_size]
        for deletion in ("DELETE FROM long WHERE id > 5000", "DELETE FROM long WHERE id > 500"):
            lab.run(deletion, "VACUUM long")
            links.append(lab.take())
            sizes.append(second.stat().st_size)
            with lab.restored(links[-1]) as ours:
                assert differences(ours, lab.combined(*links)) == {}
                lab.judge(links[-1], ours)
        assert sizes[0] > sizes[1] > sizes[2] == 0


def make_long_relation(lab: ChainLab) -> str:
    """Its first segment is full of new, empty pages, which cost nothing; its second has rows.

    VACUUM cuts off a thousand pages at least (REL_TRUNCATE_MINIMUM, vacuumlazy.c).
    """
    rows = "SELECT n AS id, repeat(md5(n::text), 20) AS body FROM generate_series"
    lab.run(f"CREATE TABLE long AS {rows}(1, 1000) n")
    path = lab.relation("long")
    lab.source.stop()
    os.truncate(lab.source.data / path, SEGMENT)
    lab.source.start()
    lab.run(f"INSERT INTO long {rows}(1001, 20000) n", "VACUUM (FREEZE) long")
    return path


def test_whatever_changes_between_the_links_a_restore_is_what_pg_combinebackup_makes(
    key_set: KeySet, roomy_place: Path, chain_seed: int
) -> None:
    work = RandomWork(chain_seed)
    with chain_lab(MAJORS[chain_seed % len(MAJORS)], key_set, roomy_place) as lab:
        lab.run("CREATE TABLESPACE inside LOCATION ''")
        links: list[Link] = []
        for _ in range(1 + LINKS):
            work.go_on(lab.source, STATEMENTS)
            links.append(lab.take(BackupKind.INCREMENTAL if links else BackupKind.FULL))
        for link, oracle in zip(links[1:], lab.combined_pairwise(*links), strict=True):
            with lab.restored(link) as ours:
                assert differences(ours, oracle) == {}, "\n".join(work.done)
                if link is links[-1]:
                    assert_one_run_makes_the_same(lab, ours, *links)
                    lab.judge(link, ours)


def test_b13_what_changes_while_backups_run_makes_no_chain_wrong(
    key_set: KeySet, roomy_place: Path
) -> None:
    work = RandomWork(13)
    with chain_lab(MAJORS[-1], key_set, roomy_place) as lab:
        lab.run("CREATE TABLESPACE inside LOCATION ''")
        work.go_on(lab.source, STATEMENTS)
        links = [lab.take(BackupKind.FULL)]
        for _ in range(3):
            changes = partial(work.go_on, lab.source, 4 * STATEMENTS)
            links.append(lab.take_beside(changes, MUCH_WAL))
            document = links[-1].document
            assert document.stop_lsn - document.start_lsn > MUCH_WAL
        for link, oracle in zip(links[1:], lab.combined_pairwise(*links), strict=True):
            with lab.restored(link) as ours:
                assert differences(ours, oracle) == {}
                with lab.started(ours) as copy:
                    check_with_amcheck(copy)
