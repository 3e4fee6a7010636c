"""The backup_label of every link against its document: only a chain that PostgreSQL made is one."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from shared.domain.backup_index import (
    BackupIndex,
    IndexedMember,
    IndexedVolume,
    MemberKind,
    MemberTable,
)
from shared.domain.lsn import Lsn
from shared.domain.not_restorable import NotRestorable
from shared.errors import ChainBroken, PgkeepError, SegmentCorrupt
from worker.commands.chain_labels import checked_label
from worker.pipeline.seekable_zstd import compress_frame
from worker.postgres.backup_label import SIZE_LIMIT, BackupLabelFileInvalid

HEADER = 512


def label_file(start: int, parent: int | None = None, timeline: int = 1) -> bytes:
    lines = [f"START WAL LOCATION: {Lsn(start)} (file 000000010000000000000002)"]
    lines += ["LABEL: pgkeep", f"START TIMELINE: {timeline}"]
    if parent is not None:
        lines += [f"INCREMENTAL FROM LSN: {Lsn(parent)}", "INCREMENTAL FROM TLI: 1"]
    return "".join(f"{line}\n" for line in lines).encode()


class Volume:
    """One archive in two frames, cut inside the label."""

    def __init__(self, content: bytes) -> None:
        plain = bytes(HEADER) + content
        cut = HEADER + len(content) // 2
        self.plains = (plain[:cut], plain[cut:])
        self.stored = tuple(compress_frame(piece, 1) for piece in self.plains)

    def compressed(self, offset: int, length: int) -> memoryview:
        return memoryview(b"".join(self.stored))[offset : offset + length]


def checked(*links: tuple[int, bytes | None]) -> bytes:
    """Each link's start by its document, and its backup_label."""
    volumes, indexes, opened = {}, [], []
    for number, (start, content) in enumerate(links):
        name, volume = f"link-{number}", Volume(content or b"nothing")
        volumes[name] = volume
        members = MemberTable()
        if content is not None:
            path, kind = b"backup_label", MemberKind.FILE
            members.append(IndexedMember("pgdata", path, kind, len(content), 0o600, HEADER))
        sizes = (tuple(map(len, volume.stored)), tuple(map(len, volume.plains)))
        indexes.append(
            BackupIndex(name, (IndexedVolume("base", "pgdata", 0, 0, 0, *sizes),), members)
        )
        document = SimpleNamespace(label=name, start_lsn=Lsn(start), timeline=1)
        opened.append(SimpleNamespace(stored=SimpleNamespace(document=document)))
    chain: Any = SimpleNamespace(links=opened)
    opener: Any = lambda label, _: volumes[label]  # noqa: E731 - typed as what it stands for
    with ThreadPoolExecutor(2) as executor:
        return checked_label(chain, indexes, opener, executor)


def test_a_chain_that_fits_gives_the_newest_label_without_its_parent() -> None:
    links = [(10, label_file(10)), (20, label_file(20, 10)), (30, label_file(30, 20))]
    assert checked(*links) == label_file(30)
    assert checked((10, label_file(10))) == label_file(10)


@pytest.mark.parametrize(
    ("links", "error", "match"),
    [
        ([(10, label_file(10, 5))], ChainBroken, "builds on no other, by its backup_label on"),
        ([(10, label_file(10, 5)), (20, label_file(20, 10))], ChainBroken, "link-0 builds on no"),
        ([(10, label_file(10)), (20, label_file(20))], ChainBroken, "on no other"),
        ([(10, label_file(10)), (20, label_file(20, 11))], ChainBroken, "0/A on .* on the one"),
        ([(10, label_file(11))], ChainBroken, "starts at 0/A on timeline 1, its backup_label at"),
        ([(10, label_file(10, timeline=2))], ChainBroken, "at 0/A on timeline 2"),
        ([(10, None)], NotRestorable, "link-0 cannot be restored: it holds no backup_label"),
        ([(10, None), (20, label_file(20, 10))], NotRestorable, "link-0 cannot be restored"),
        ([(10, bytes(SIZE_LIMIT + 1))], BackupLabelFileInvalid, "link-0 is damaged where its"),
    ],
    ids=[
        "c08 a full that builds on another",
        "c08 a full below an incremental that builds on another",
        "c03 two fulls",
        "c03 a link on another parent",
        "a label of another start",
        "a label of another timeline",
        "r13 none",
        "r13 none in the parent",
        "a huge one",
    ],
)
def test_a_chain_that_does_not_fit_is_refused(
    links: list[tuple[int, bytes | None]], error: type[PgkeepError], match: str
) -> None:
    with pytest.raises(error, match=match):
        checked(*links)


def test_damage_names_the_link_and_says_what_else_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def rotten(*_: object) -> memoryview:
        raise SegmentCorrupt("segment 3 does not authenticate")

    monkeypatch.setattr(Volume, "compressed", rotten)
    with pytest.raises(SegmentCorrupt, match="backup link-0 is damaged") as refused:
        checked((10, label_file(10)))
    assert "does without link-0" in refused.value.advice
