"""Reading WAL back: whole or from pieces, and what is absent is told from what went wrong."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from shared.domain.cluster import cluster_name
from shared.domain.wal_segment import WalFileName, WalObject, WalPiece
from shared.errors import (
    Corrupt,
    NotFound,
    SegmentCorrupt,
    StorageUnavailable,
)
from shared.repository import layout
from shared.repository.blob_store import BlobInfo, BlobName
from tests.harness.corrupt import flip_bit
from tests.harness.wal_lab import HISTORY, LABEL, WalLab, put_piece, segment
from tests.harness.wal_pages import MIB
from tests.harness.worker_services import CLUSTER, WatchedStore
from worker.commands.wal_reader import (
    ReadSegment,
    WalAbsent,
    WalUnreadable,
    WalVanished,
)
from worker.keys.key_ring import CompositeKeyRing, NoUsableKey

pytestmark = pytest.mark.integration


def test_a_segment_is_put_together_from_pieces_up_to_the_first_hole(wal_lab: WalLab) -> None:
    name, content = segment()
    put_piece(wal_lab, name, content, 0, 30_000)
    put_piece(wal_lab, name, content, 30_000, 30_001)
    put_piece(wal_lab, name, content, 40_000, MIB)
    read = wal_lab.reader().read_segment(name)
    assert read == ReadSegment(content[:30_001].ljust(MIB, b"\0"), complete=False)
    # Another session began at the start again, and got further.
    put_piece(wal_lab, name, content, 0, 20_000)
    put_piece(wal_lab, name, content, 20_000, 60_000)
    assert wal_lab.reader().read_segment(name) == ReadSegment(content, complete=True)
    assert wal_lab.reader().read(name) == content


def test_a_segment_stored_whole_is_not_read_from_pieces(wal_lab: WalLab) -> None:
    name, content = segment()
    wal_lab.put(name, content)
    before = wal_lab.reader().read_segment(name)
    put_piece(wal_lab, name, segment(filler=7)[1], 0, 5_000)
    assert wal_lab.reader().read_segment(name) == before == ReadSegment(content, complete=True)


def test_pieces_that_contradict_one_another_are_not_read(local_wal_lab: WalLab) -> None:
    name, content = segment()
    put_piece(local_wal_lab, name, content, 0, 30_000)
    put_piece(local_wal_lab, name, segment(filler=7)[1], 10_000, 60_000)
    with pytest.raises(WalUnreadable, match="differ in what they hold before 30000"):
        local_wal_lab.reader().read_segment(name)


def test_pieces_without_a_beginning_are_not_an_absent_segment(local_wal_lab: WalLab) -> None:
    name, content = segment()
    put_piece(local_wal_lab, name, content, 8192, MIB)
    with pytest.raises(WalUnreadable, match=r"no piece .* holds its beginning"):
        local_wal_lab.reader().read_segment(name)


def test_w06_postgresql_s_own_partial_is_kept_apart(local_wal_lab: WalLab) -> None:
    name, content = segment()
    partial = WalFileName.parse(f"{name}.partial")
    local_wal_lab.put(partial, content)
    assert local_wal_lab.reader().read(partial) == content
    with pytest.raises(WalAbsent):
        local_wal_lab.reader().read_segment(name)


@pytest.mark.parametrize("item", [segment()[0], HISTORY, LABEL, WalPiece.of(segment()[0], 0, 9)])
def test_r21_r23_what_storage_does_not_have_is_absent(wal_lab: WalLab, item: WalObject) -> None:
    wal_lab.put(*segment(2))
    with pytest.raises(WalAbsent, match=str(item)):
        wal_lab.reader().read(item)


PIECED, ABSENT, NO_HISTORY = segment(1)[0], segment(9)[0], WalFileName.parse("00000003.history")


@pytest.mark.parametrize(
    ("operation", "items"),
    [
        ("head", (PIECED, ABSENT, HISTORY, NO_HISTORY)),
        ("list", (PIECED, ABSENT, NO_HISTORY)),
        ("read", (PIECED, HISTORY)),
    ],
)
def test_r21_trouble_on_the_way_is_never_absence(
    local_wal_lab: WalLab,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    items: tuple[WalFileName, ...],
) -> None:
    name, content = segment(1)
    local_wal_lab.put(HISTORY, b"1\t0/3000000\n")
    put_piece(local_wal_lab, name, content, 0, MIB)

    def away(*_: object, **__: object) -> None:
        raise StorageUnavailable("nobody answers")

    monkeypatch.setattr(local_wal_lab.services.store, operation, away)
    for item in items:
        with pytest.raises(StorageUnavailable):
            local_wal_lab.reader().read(item)


def test_r21_a_container_that_is_gone_is_never_absence(wal_lab: WalLab) -> None:
    class Elsewhere(WatchedStore):
        def head(self, name: BlobName) -> BlobInfo:
            return self.store.head(replace(name, container="elsewhere"))

    with pytest.raises(NotFound) as failed:
        wal_lab.reader(store=Elsewhere(wal_lab.services.store)).read(HISTORY)
    assert failed.value.code == "container-not-found"


def test_r21_a_file_that_vanishes_while_it_is_read_is_never_absence(wal_lab: WalLab) -> None:
    """Nor is one that storage denies once and lists a moment later."""
    name, content = segment()

    class Forgetful(WatchedStore):
        def read(self, name: BlobName, *, limit: int) -> bytes:
            if name.container == layout.WAL:
                self.store.delete(name)
            return self.store.read(name, limit=limit)

    class Contradicting(WatchedStore):
        def head(self, name: BlobName) -> BlobInfo:
            return self.store.head(replace(name, path=f"{name.path}X"))

    wal_lab.put(HISTORY, b"1\t0/3000000\n")
    with pytest.raises(WalVanished):
        wal_lab.reader(store=Contradicting(wal_lab.services.store)).read(HISTORY)
    put_piece(wal_lab, name, content, 0, 9_000)
    put_piece(wal_lab, name, content, 9_000, MIB)
    for item in (HISTORY, name):
        with pytest.raises(WalVanished):
            wal_lab.reader(store=Forgetful(wal_lab.services.store)).read(item)


def test_a_segment_stored_between_two_looks_is_found(wal_lab: WalLab) -> None:
    name, content = segment()

    class Late(WatchedStore):
        def head(self, blob: BlobName) -> BlobInfo:
            try:
                return self.store.head(blob)
            finally:
                wal_lab.put(name, content)

    assert wal_lab.reader(store=Late(wal_lab.services.store)).read(name) == content


def test_r22_changed_moved_or_cut_bytes_do_not_open(wal_lab: WalLab) -> None:
    (name, content), (other, _) = segment(1), segment(2)
    changes: list[Callable[[bytes], bytes]] = [
        lambda raw: flip_bit(raw, 8),
        lambda raw: flip_bit(raw, -1),
        lambda raw: flip_bit(raw, len(raw) * 4),
        lambda raw: raw[:-1],
        lambda raw: b"",
    ]
    wal_lab.put(name, content)
    raw = wal_lab.services.store.read(wal_lab.blob(name), limit=MIB)
    told = dict(wal_lab.stored()[wal_lab.blob(name).path].metadata)
    for change in changes:
        wal_lab.replaced(name, lambda _raw, change=change: change(raw), **told)  # type: ignore[misc]
        with pytest.raises(Corrupt):
            wal_lab.reader().read(name)
    wal_lab.services.store.create(wal_lab.blob(other), raw, metadata=told)
    with pytest.raises(SegmentCorrupt, match=str(other)):
        wal_lab.reader().read(other)


@pytest.mark.parametrize("item", [segment()[0], WalPiece.of(segment()[0], 0, MIB)])
def test_r02_what_was_hurt_on_the_way_is_read_once_more_and_then_named(
    local_wal_lab: WalLab, item: WalObject
) -> None:
    name, content = segment()
    if item == name:
        local_wal_lab.put(name, content)
    else:
        put_piece(local_wal_lab, name, content, 0, MIB)

    @dataclass
    class Turning(WatchedStore):
        hurt: int = 0
        reads: int = 0

        def read(self, name: BlobName, *, limit: int) -> bytes:
            raw = self.store.read(name, limit=limit)
            if name.container != layout.WAL:
                return raw
            self.reads += 1
            return flip_bit(raw, len(raw) * 4) if self.reads <= self.hurt else raw

    once = Turning(local_wal_lab.services.store, hurt=1)
    assert local_wal_lab.reader(store=once).read(name) == content
    always = Turning(local_wal_lab.services.store, hurt=9)
    with pytest.raises(SegmentCorrupt, match="at offset 40 does not authenticate") as failed:
        local_wal_lab.reader(store=always).read(name)
    assert str(layout.wal_blob(cluster_name(CLUSTER), item)) in failed.value.fact
    assert (once.reads, always.reads) == (2, 2)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"kid": "k" + "a" * 26},
        {"kid": "nonsense"},
        {"size": "-1"},
        {"points": "x"},
    ],
    ids=["none", "no such key", "no key", "size", "points"],
)
def test_metadata_that_is_lost_or_wrong_only_costs_time(
    local_wal_lab: WalLab, told: dict[str, str]
) -> None:
    items = [segment(number) for number in range(1, 5)]
    for name, content in items:
        local_wal_lab.put(name, content)
        local_wal_lab.replaced(name, bytes, **told)
    reader = local_wal_lab.reader()
    for name, content in items[::-1]:
        assert reader.read(name) == content


def test_metadata_that_names_another_session_s_key_only_costs_time(local_wal_lab: WalLab) -> None:
    (name, content), (other, _) = segment(1), segment(2)
    local_wal_lab.put(name, content)
    local_wal_lab.put(other, segment(2)[1])
    local_wal_lab.replaced(name, bytes, kid=local_wal_lab.metadata(other).kid)
    assert local_wal_lab.reader().read(name) == content


def test_metadata_that_tells_another_digest_is_noticed(local_wal_lab: WalLab) -> None:
    name, content = segment()
    local_wal_lab.put(name, content)
    local_wal_lab.replaced(name, bytes, sha256="0" * 64)
    with pytest.raises(WalUnreadable, match="metadata"):
        local_wal_lab.reader().read(name)


@pytest.mark.parametrize("told", [True, False], ids=["key told", "key not told"])
def test_r03_who_may_not_open_is_told_so_and_not_that_it_is_corrupt(
    local_wal_lab: WalLab, *, told: bool
) -> None:
    name, content = segment()
    local_wal_lab.put(name, content)
    if not told:
        local_wal_lab.replaced(name, bytes)
    with pytest.raises(NoUsableKey):
        local_wal_lab.reader(key_ring=CompositeKeyRing([])).read(name)
