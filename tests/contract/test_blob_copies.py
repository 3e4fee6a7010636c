"""What blobs tell of their copies elsewhere, and what of a backup is looked at for them."""

from datetime import timedelta
from pathlib import Path

import pytest

from local.azurite import EmulatedAccount
from shared.domain.cluster import cluster_name
from shared.domain.lsn import Lsn
from shared.domain.replication import CopyState, not_yet_safe, wal_safe_through
from shared.domain.wal_segment import WalFileName, WalObject, WalPiece
from shared.repository import layout
from shared.repository.azure_blob_store import open_blob_store
from shared.repository.backups import read_backup
from shared.repository.blob_store import BlobName
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.documents import WalRange
from shared.repository.replicated_blobs import copy_of
from tests.harness.http_fault_proxy import Fault, Harm, HttpFaultProxy
from tests.harness.signed_repository import KID, SignedRepository

DEMO = cluster_name("demo")
NAME = BlobName("full", "demo/20261101T030000Z-F-k3x7/index")
RULE = "x-ms-or-11111111-2222-3333-4444-555555555555_66666666-7777-8888-9999-000000000000"
OTHER_RULE = RULE.replace("6666", "7777")


@pytest.mark.parametrize(
    ("headers", "copied"),
    [
        ({}, None),
        ({RULE: "complete"}, CopyState.COMPLETE),
        ({RULE: "failed"}, CopyState.FAILED),
        ({RULE: "Failed", OTHER_RULE: "complete"}, CopyState.FAILED),
        ({RULE: "complete", OTHER_RULE: "pending"}, None),
    ],
)
def test_head_tells_how_object_replication_went(
    azurite_account: EmulatedAccount, headers: dict[str, str], copied: CopyState | None
) -> None:
    """The emulator replicates nothing: the proxy adds the headers that Azure would."""
    proxy = HttpFaultProxy(azurite_account.blob_url)
    store = open_blob_store(proxy.url, azurite_account.credential)
    made = store.create(NAME, b"content")
    proxy.script(Fault(Harm.CHANGE_REPLY, "HEAD", headers=headers))
    found = store.head(NAME)
    assert (found.copied, found) == (copied, made)
    store.close()
    proxy.close()


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    store = DirectoryBlobStore(tmp_path)
    for container in layout.CONTAINERS:
        store.create_container(container)
    made = SignedRepository(store)
    made.register("demo")
    return made


def test_a_backup_needs_its_parts_keys_identity_and_the_wal_between_its_ends(
    repository: SignedRepository,
) -> None:
    start, end = Lsn.parse("0/2000028"), Lsn.parse("0/4000100")
    backup = repository.commit(
        start_lsn=start,
        stop_lsn=end,
        wal=(WalRange(timeline=1, start=start, end=end),),
        wal_included=False,
    )
    whole = [WalFileName.parse(f"00000001000000000000000{n}") for n in (1, 2, 3, 5)]
    pieces = [
        WalPiece.of(WalFileName.parse("000000010000000000000004"), *ends)
        for ends in ((0, 0x80), (0x80, 0x200), (0x200, 0x300))
    ]
    items: list[WalObject] = [*whole, *pieces]
    for item in items:
        repository.store.create(layout.wal_blob(DEMO, item), b"")
    for name in (layout.key_record(DEMO, KID, 1), BlobName("wal", "demo/00000001/junk")):
        repository.store.create(name, b"")

    copy = copy_of(repository.store, read_backup(repository.store, backup.ref, repository.pinned))
    assert {one.name for one in copy.artefacts} == {
        *(str(backup.ref.blob(name)) for name in ("base.pgdata.0000", "backup_manifest", "index")),
        str(backup.ref.document),
        str(layout.key_record(DEMO, KID)),
        str(layout.key_record(DEMO, KID, 1)),
        str(layout.cluster_document(DEMO)),
    }
    [needed] = copy.wal
    assert [str(one.artefact.name).rpartition("/")[2] for one in needed.pieces] == [
        *(str(item) for item in whole[1:3]),
        *(str(item) for item in pieces[:2]),
    ]
    written = repository.store.head(layout.wal_blob(DEMO, pieces[1])).modified
    later = written + timedelta(hours=1)
    assert wal_safe_through(needed.pieces, start, later) == Lsn.parse("0/4000200")
    assert not_yet_safe(copy, later) == ()
    assert len(not_yet_safe(copy, written)) == len(copy.artefacts) + 1


def test_what_is_not_there_is_named(repository: SignedRepository) -> None:
    backup = repository.commit(kid="k" + "b" * 26, omit=layout.INDEX)
    copy = copy_of(repository.store, read_backup(repository.store, backup.ref, repository.pinned))
    missing = [one.name for one in copy.artefacts if one.written is None]
    assert missing == [
        str(backup.ref.blob(layout.INDEX)),
        str(layout.key_record(DEMO, "k" + "b" * 26)),
    ]
