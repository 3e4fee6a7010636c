"""The access tier of a blob: told by head and listing where there are tiers, and by nobody else."""

from pathlib import Path

import pytest

from local.azurite import EmulatedAccount
from shared.domain.backup import BackupKind, BackupLabel
from shared.domain.cluster import ClusterName
from shared.errors import BlobArchived
from shared.repository.azure_blob_store import open_blob_store
from shared.repository.blob_store import BlobName
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.guarded_blobs import archived_anywhere, archived_of
from shared.repository.layout import BackupRef

REF = BackupRef(ClusterName("demo"), BackupLabel.parse("20261101T030000Z-F-k3x7"))
OTHER = BackupRef(ClusterName("demo"), BackupLabel.parse("20261108T030000Z-F-k3x7"))


@pytest.mark.parametrize("tier", ["Cool", "Cold", "Archive"])
def test_head_and_listing_tell_the_tier_and_the_blob_stays_the_same(
    azurite_account: EmulatedAccount, tier: str
) -> None:
    store = open_blob_store(azurite_account.blob_url, azurite_account.credential)
    name = REF.blob("index")
    before = store.create(name, b"content")
    assert store.head(name).tier == "Hot"

    store._blob(name).set_standard_blob_tier(tier)
    [listed] = store.list("full", "demo/")
    assert (listed.tier, store.head(name).tier) == (tier, tier)
    assert listed == store.head(name) == before
    store.close()


def test_archived_blobs_are_counted_for_their_backup_and_cannot_be_read(
    azurite_account: EmulatedAccount,
) -> None:
    store = open_blob_store(azurite_account.blob_url, azurite_account.credential)
    foreign = BlobName("full", "demo/notes.txt")
    for name in (REF.blob("index"), REF.blob("base.pgdata.0000"), OTHER.blob("index"), foreign):
        store.create(name, b"content")
    assert archived_of(store, REF) == {}
    for name in (REF.blob("index"), REF.blob("base.pgdata.0000"), foreign):
        store._blob(name).set_standard_blob_tier("Archive")

    assert (archived_of(store, REF), archived_of(store, OTHER)) == ({REF: 2}, {})
    with pytest.raises(BlobArchived):
        store.read(REF.blob("index"), limit=100)
    store.create_container(BackupKind.INCREMENTAL.value)
    assert archived_anywhere(store) == {REF: 2}
    store.close()


def test_a_directory_has_no_tiers(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    for kind in BackupKind:
        store.create_container(kind.value)
    assert store.create(REF.blob("index"), b"content").tier is None
    assert [one.tier for one in store.list("full")] == [None]
    assert archived_anywhere(store) == {}
