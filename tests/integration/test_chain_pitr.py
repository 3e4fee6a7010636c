"""To one instant from a full backup and from a chain: PostgreSQL's 002_compare_backups.pl."""

from dataclasses import replace
from pathlib import Path

import pytest

from shared.domain.backup import BackupKind
from shared.domain.lsn import Lsn
from shared.domain.recovery_target import ToLsn
from tests.harness.archived_history import archive_wal
from tests.harness.chain_lab import (
    ChainLab,
    chain_lab,
    check_with_amcheck,
    discard,
    dump_all,
)
from tests.harness.chain_workloads import STAGES, make_tablespaces, perform
from worker.commands.recover import recover
from worker.commands.recovery import RecoveryRequest
from worker.keys.generate import KeySet

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MAJOR = 18


def test_recovery_to_one_position_gives_the_same_from_the_full_and_from_each_link(
    key_set: KeySet, roomy_place: Path
) -> None:
    begin, much, _, come_back, changed_again, *_ = STAGES
    with chain_lab(MAJOR, key_set, roomy_place) as lab:
        make_tablespaces(lab.source, lab.place)
        perform(lab.source, begin)
        links = [lab.take(BackupKind.FULL)]
        for stage in (much, come_back):
            perform(lab.source, stage)
            links.append(lab.take())
        perform(lab.source, changed_again)
        expected, target = dump_all(lab.source), position(lab)
        lab.run("CREATE TABLE too_late AS SELECT 1")
        archive_wal(lab.site, lab.source)
        for link in links:
            data = recovered(lab, link.label, target)
            with lab.started(data) as copy:
                assert dump_all(copy) == expected
                check_with_amcheck(copy)
            discard(data)


def position(lab: ChainLab) -> Lsn:
    """Behind everything that was committed."""
    [(lsn,)] = lab.source.query("SELECT pg_current_wal_insert_lsn()::text")
    lab.run("SELECT pg_logical_emit_message(false, 'pgkeep', 'what follows is too late')")
    return Lsn.parse(lsn)


def recovered(lab: ChainLab, label: str, target: Lsn) -> Path:
    data = lab.place / f"recovered-{label}" / "data"
    data.parent.mkdir(mode=0o711)
    recovery = RecoveryRequest(ToLsn(target, inclusive=False))
    request = lab.site.request(data, tablespaces_below=data.parent, sync=False, recovery=recovery)
    outcome = recover(lab.site.services(), replace(request, label=label))
    assert outcome.restored.label == label
    assert outcome.reached >= target
    return data
