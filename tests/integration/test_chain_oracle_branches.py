"""Which backups make a chain: pg_combinebackup and we must agree (its 005_integrity.pl)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from shared.domain.backup import BackupKind
from shared.errors import ChainBroken, Corrupt
from tests.harness.chain_lab import ChainLab, Link, ProgramFailed, chain_lab, differences
from tests.harness.corrupt import flip_bit
from tests.harness.resealed import adopt, blob_file, stored_backup
from worker.commands.verify import verify
from worker.keys.generate import KeySet

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MAJOR = 18


def test_c03_c04_c11_branches_are_chains_of_their_own_and_links_in_no_other_order_are_one(
    key_set: KeySet, roomy_place: Path
) -> None:
    with chain_lab(MAJOR, key_set, roomy_place) as lab:
        lab.site = lab.site.changed(
            cluster={"incremental": {"parent": "verified"}},
            worker={"manifest_checksums": "SHA256"},  # as in 004_manifest
        )
        lab.run("CREATE TABLE t AS SELECT n FROM generate_series(1, 30000) n")
        older, full = lab.take(BackupKind.FULL), verified(lab, lab.take(BackupKind.FULL))
        lab.run("UPDATE t SET n = -n WHERE n < 5000")
        one = lab.take()
        lab.run("DELETE FROM t WHERE n > 20000", "VACUUM t")
        other = lab.take()
        verified(lab, one)
        lab.run("INSERT INTO t SELECT n FROM generate_series(1, 15000) n")
        two = lab.take()
        for chain in ((full, one), (full, other), (full, one, two)):
            assert_restored(lab, chain)
        assert_no_chain(lab, "not before", full, two, one)
        assert_no_chain(lab, "by its backup_label on", full, two)
        assert_no_chain(lab, "by its backup_label on", full, one, other)
        assert_no_chain(lab, "by its backup_label on", older, one)
        assert_damage_is_named(lab, of=one, below=two, beside=other)


def verified(lab: ChainLab, link: Link) -> Link:
    report = verify(lab.site.services(), link.ref)
    assert report.passed, report.findings
    return link


def assert_restored(lab: ChainLab, chain: Sequence[Link]) -> None:
    assert [link.parent for link in chain] == [None, *(link.label for link in chain[:-1])]
    with lab.restored(chain[-1]) as ours:
        assert differences(ours, lab.combined(*chain)) == {}
        lab.judge(chain[-1], ours)


def assert_no_chain(lab: ChainLab, fact: str, *links: Link) -> None:
    """Though every document says so, under a good signature, and nothing is written."""
    with pytest.raises(ProgramFailed, match=r"starts at LSN .* but expected"):
        lab.combined(*links)
    site = lab.site.copied(lab.new("hostile") / "site")
    parent = stored_backup(site, links[0].ref)
    for link in links[1:]:
        parent = adopt(site, link.ref, parent)
    with pytest.raises(ChainBroken, match=fact), replace(lab, site=site).restored(links[-1]):
        pass
    assert not [*lab.place.glob("restored-*/*")]


def assert_damage_is_named(lab: ChainLab, of: Link, below: Link, beside: Link) -> None:
    """One bit in the middle of its largest volume, of which every restore needs something."""
    volume = max(of.document.volumes, key=lambda item: item.stored_size).name
    path = blob_file(lab.site, of.ref.blob(volume))
    path.chmod(0o600)
    path.write_bytes(flip_bit(path.read_bytes(), path.stat().st_size * 4))
    with pytest.raises(Corrupt, match=f"backup {of.label} is damaged"), lab.restored(below):
        pass
    with lab.restored(beside):
        pass
