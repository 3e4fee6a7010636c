"""Real backups, real WAL: after `pgkeep expire` everything that it promises is restored."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import CompletedProcess
from threading import Lock

import pytest

from shared.domain.backup import BackupKind
from shared.domain.lsn import Lsn
from shared.domain.recovery_target import ToLatest
from shared.repository.blob_store import BlobInfo, BlobName
from tests.harness.archived_history import archive_wal
from tests.harness.chain_lab import ChainLab, Link, chain_lab, check_with_amcheck, dump_all
from tests.harness.worker_services import CLUSTER, Site, WatchedStore
from worker.commands.expired_meanwhile import BackupExpired
from worker.commands.recover import recover
from worker.commands.recovery import RecoveryRequest
from worker.commands.restore import restore
from worker.commands.verify import verify
from worker.keys.generate import KeySet

pytestmark = [pytest.mark.integration, pytest.mark.slow]

# Days: whatever was taken before the command started is older.
_AT_ONCE = 1e-6


def test_what_expire_promises_is_restored(key_set: KeySet, roomy_place: Path) -> None:
    with chain_lab(17, key_set, roomy_place) as lab:
        lab.run("CREATE TABLE kept AS SELECT generate_series(1, 20000) AS id")
        old = [lab.take(BackupKind.FULL), grown(lab)]
        full, link = lab.take(BackupKind.FULL), grown(lab)
        assert verify(lab.site.services(), full.ref).passed
        lab.run("DELETE FROM kept WHERE id % 3 = 0")
        expected = dump_all(lab.source)
        archive_wal(lab.site, lab.source)
        before = wal(lab.site)

        said = expired_while_it_is_restored(lab, old[0], link)

        assert said.returncode == 0, said.stderr
        report = json.loads(said.stdout)
        assert [one["label"] for one in report["went"]] == [old[1].label, old[0].label]
        assert report["wal"]["files"] == len(before) - len(wal(lab.site)) > 0
        [window] = report["windows_after"]
        assert window["backups"] == [full.label, link.label]
        assert Lsn.parse(window["start"]) == full.document.stop_lsn

        restored = lab.site.changed()  # the settings of who has the keys
        assert verify(restored.services(), link.ref, whole_chain=True).passed
        with lab.restored(link) as data:
            lab.judge(link, data)
        for backup in (full, link):
            latest(lab, backup, expected, window["end"])


@dataclass
class ReapedStore(WatchedStore):
    """Before the first volume is read, somebody else's `expire` comes and goes."""

    reap: Callable[[], object] = lambda: None
    _reaped: bool = False
    _turn: Lock = field(default_factory=Lock)

    def read_range(self, name: BlobName, offset: int, length: int) -> bytes:
        with self._turn:
            if "pgdata" in name.path and not self._reaped:
                self._reaped = True
                self.reap()
        return super().read_range(name, offset, length)


def expired_while_it_is_restored(lab: ChainLab, backup: Link, held: Link) -> CompletedProcess[str]:
    said: list[CompletedProcess[str]] = []
    services = lab.site.services()
    request = lab.site.request(lab.new("too-late") / "data", sync=False)
    other = reaper(lab.site, held)
    store = ReapedStore(
        services.store, reap=lambda: said.append(other.pgkeep("expire", CLUSTER, "--json"))
    )
    with pytest.raises(BackupExpired, match=f"deleted backup {backup.label}: "):
        restore(replace(services, store=store), replace(request, label=backup.label))
    return said[0]


def grown(lab: ChainLab) -> Link:
    lab.run("INSERT INTO kept SELECT generate_series(1, 20000)")
    return lab.take()


def wal(site: Site) -> list[BlobInfo]:
    return list(site.services().store.list("wal", f"{CLUSTER}/"))


def reaper(site: Site, held: Link) -> Site:
    """The same repository as an identity sees it that signs and deletes, and opens nothing."""
    retention = {
        "full_days": _AT_ONCE,
        "incremental_days": _AT_ONCE,
        "wal_days": _AT_ONCE,
        "keep_last": 1,
        "hold": [held.label],
    }
    return site.changed(keys={"unwrap": []}, cluster={"retention": retention})


def latest(lab: ChainLab, backup: Link, expected: str, end: str) -> None:
    """Recovered to the end of what the report calls its window."""
    data = lab.new("latest") / "data"
    data.parent.chmod(0o711)
    request = lab.site.request(data, sync=False, recovery=RecoveryRequest(ToLatest()))
    outcome = recover(lab.site.services(), replace(request, label=backup.label))
    assert outcome.restored.label == backup.label
    assert outcome.reached <= Lsn.parse(end)
    with lab.started(data) as copy:
        assert dump_all(copy) == expected
        check_with_amcheck(copy)
