"""What goes wrong around the restore of a chain: told before a byte is written, or nothing starts.

Links of a chain go missing, rot, are swapped and lied about; the process dies at every step.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from signal import SIGKILL

import pytest

from shared.errors import ChainBroken, SegmentCorrupt
from shared.repository.blob_store import BlobName
from shared.repository.documents import BackupLink
from tests.harness.chain_site import CommittedChain
from tests.harness.corrupt import flip_bit
from tests.harness.killed_worker import run_and_kill
from tests.harness.resealed import adopt, blob_file, reseal, stored_backup
from tests.harness.worker_services import WatchedStore, startable, verify_with_postgres
from worker.commands.opened_backup import BackupIncomplete
from worker.commands.restore import restore
from worker.commands.services import Services
from worker.pipeline.file_writer import MARKER, TargetTree

pytestmark = [pytest.mark.integration, pytest.mark.fault]


@pytest.fixture
def chain(committed_chain: CommittedChain, place: Path) -> CommittedChain:
    """With a repository of its own, to damage."""
    return committed_chain.copied(place / "copy")


@pytest.fixture
def data(place: Path) -> Path:
    (place / "restored").mkdir()
    return place / "restored" / "data"


def restored(chain: CommittedChain, data: Path, number: int = -1) -> None:
    restore(chain.site.services(), chain.request(data, number))
    require_restored(chain, data)


def require_restored(chain: CommittedChain, data: Path) -> None:
    assert startable(data)
    assert verify_with_postgres(chain.source.programs, data, "--ignore=tablespace_map") == ""


def test_c03_a_missing_parent_is_found_before_a_byte_is_written(
    chain: CommittedChain, data: Path
) -> None:
    chain.site.services().store.delete(chain.links[1].ref.document)
    with pytest.raises(ChainBroken, match=f"needs {chain.labels[1]}, which is gone"):
        restored(chain, data)
    assert list(data.parent.iterdir()) == []
    restored(chain, data, 0)


@pytest.mark.parametrize("part", ["base.pgdata.0000", "index"])
def test_c04_a_missing_part_of_a_parent_is_found_before_a_byte_is_written(
    chain: CommittedChain, data: Path, part: str
) -> None:
    chain.site.services().store.delete(chain.links[0].ref.blob(part))
    with pytest.raises(BackupIncomplete, match=f"backup {chain.labels[0]} is not whole.*{part}"):
        restored(chain, data)
    assert list(data.parent.iterdir()) == []


@pytest.mark.parametrize(("number", "volume"), [(0, "base.pgdata.0001"), (1, "base.pgdata.0000")])
def test_c04_a_rotten_parent_is_named_with_volume_segment_and_file(
    chain: CommittedChain, data: Path, number: int, volume: str
) -> None:
    parent = chain.links[number]
    blob = blob_file(chain.site, parent.ref.blob(volume))
    whole = blob.read_bytes()
    blob.write_bytes(flip_bit(whole, len(whole) * 4))
    with pytest.raises(SegmentCorrupt) as refused:
        restored(chain, data)
    named = rf"backup {parent.label} is damaged where .* lies.*: segment \d+ of \w+/.*{volume} at"
    assert re.match(named, refused.value.fact)
    assert f"does without {parent.label}" in refused.value.advice
    assert not startable(data)
    if number:
        restored(chain, data, number - 1)
        shutil.rmtree(data.parent)
        data.parent.mkdir()
    blob.write_bytes(whole)
    restored(chain, data)


def test_c03_a_link_that_postgresql_put_on_another_backup_is_refused(
    chain: CommittedChain, data: Path
) -> None:
    """The document leaves the middle link out; only backup_label knows better."""
    full, _, last = chain.links
    found = stored_backup(chain.site, full.ref)
    link = BackupLink(label=found.document.label, digest=found.digest)
    reseal(chain.site, last.ref, parent=link, depth=1)
    with pytest.raises(ChainBroken, match=rf"{last.label} builds on the one from .* by its"):
        restored(chain, data)
    assert list(data.parent.iterdir()) == []


def test_c03_a_document_that_starts_elsewhere_than_its_backup_is_refused(
    chain: CommittedChain, data: Path
) -> None:
    full, middle, last = chain.links
    changed = reseal(chain.site, full.ref, start_lsn=full.document.start_lsn + 8)
    adopt(chain.site, last.ref, adopt(chain.site, middle.ref, changed))
    with pytest.raises(ChainBroken, match=f"{full.label} starts at .* its backup_label at"):
        restored(chain, data)
    with pytest.raises(ChainBroken, match=f"{full.label} starts at"):
        restored(chain, data, 0)
    assert list(data.parent.iterdir()) == []


class Crash(BaseException):
    """The end of the process, as far as anything on disk can tell."""


@dataclass
class Crashing(WatchedStore):
    """Dies at the ranged read of this number."""

    fatal: int = -1
    reads: Iterator[int] = field(default_factory=count)

    def read_range(self, name: BlobName, offset: int, length: int) -> bytes:
        if next(self.reads) == self.fatal:
            raise Crash
        return super().read_range(name, offset, length)


def crashing(services: Services, fatal: int) -> Services:
    return replace(services, store=Crashing(services.store, fatal=fatal))


def require_nothing_to_start(data: Path) -> None:
    assert not startable(data)
    for root in data.parent.iterdir():
        assert (root / MARKER).exists() == any(root.iterdir()), root


@pytest.mark.slow
def test_c12_r14_a_restore_that_dies_at_any_read_leaves_nothing_to_start_and_is_run_again(
    committed_chain: CommittedChain, data: Path
) -> None:
    """At every third one: the steps between them are the same for other bytes."""
    services, request = committed_chain.site.services(), committed_chain.request(data)
    deaths = 0
    for fatal in count(step=3):
        try:
            restore(crashing(services, fatal), request)
        except Crash:
            require_nothing_to_start(data)
            deaths += 1
        else:
            break
    assert deaths > 10
    require_restored(committed_chain, data)


def test_c12_r14_a_restore_that_dies_when_all_is_fetched_leaves_nothing_to_start(
    committed_chain: CommittedChain, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Crash

    request = replace(committed_chain.request(data), sync=True)
    for step in ("ensure", "reading", "flush", "finish"):
        with monkeypatch.context() as patched:
            patched.setattr(TargetTree, step, die)
            with pytest.raises(Crash):
                restore(committed_chain.site.services(), request)
        require_nothing_to_start(data)
    restored(committed_chain, data)


def test_c12_a_killed_restore_of_a_chain_is_run_again(chain: CommittedChain, place: Path) -> None:
    """SIGKILL, in a process of its own. The tablespace goes where the source had it."""
    target = place / "killed" / "data"
    elsewhere = chain.source.data.parent.parent / "outside"
    elsewhere.rename(elsewhere.with_name("set aside"))
    try:
        assert run_and_kill(chain.site, "restore", "during", 30, target) == -SIGKILL
        require_nothing_to_start(target)
        chain.site.restore(target)
    finally:
        shutil.rmtree(elsewhere)
        elsewhere.with_name("set aside").rename(elsewhere)
