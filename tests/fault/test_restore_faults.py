"""What goes wrong around a restore: told before a byte is written, or nothing that could start."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from local.azurite import EmulatedAccount
from local.postgres_server import PostgresServer
from shared.domain.not_restorable import NotRestorable
from shared.errors import BlobNotFound, SegmentCorrupt, StorageUnavailable
from shared.repository.blob_store import BlobName
from tests.harness.http_fault_proxy import (
    GET_BLOB,
    Fault,
    Harm,
    HttpFaultProxy,
    azure_error,
)
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.worker_services import (
    Site,
    StartRestored,
    WatchedStore,
    dump,
    make_site,
    startable,
    verify_with_postgres,
)
from worker.commands.file_owner import OwnerNeeded, OwnerUnknown
from worker.commands.restore import plan_only, restore
from worker.keys.generate import KeySet
from worker.pipeline.disk_room import DiskTooSmall
from worker.pipeline.file_writer import (
    MARKER,
    DiskFull,
    TargetNotEmpty,
    TargetRunning,
    TargetUnusable,
)

pytestmark = [pytest.mark.integration, pytest.mark.fault]


def test_r05_a_directory_that_is_not_empty_is_refused_and_stays_as_it_is(
    committed_site: Site, place: Path
) -> None:
    (place / "data").mkdir()
    (place / "data" / "precious").write_text("kept")
    with pytest.raises(TargetNotEmpty, match="'precious'"):
        committed_site.restore(place / "data")
    assert [path.name for path in (place / "data").iterdir()] == ["precious"]


def test_r06_the_directory_of_a_running_server_is_refused_whatever_lies_in_it(
    committed_site: Site, make_cluster: MakeCluster
) -> None:
    server = make_cluster()
    with pytest.raises(TargetRunning):
        committed_site.restore(server.data)
    (server.data / MARKER).touch()
    with pytest.raises(TargetRunning):
        committed_site.restore(server.data)
    assert server.query("SELECT 1") == [(1,)]
    server.stop()
    with pytest.raises(TargetNotEmpty):
        committed_site.restore(server.data)
    (server.data / MARKER).unlink()
    server.start()


def test_r08_a_target_that_cannot_be_made_is_told(committed_site: Site, place: Path) -> None:
    (place / "file").write_text("x")
    with pytest.raises(TargetUnusable):
        committed_site.restore(place / "file" / "data")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to say who shall own the files")
def test_r08_root_must_name_an_owner_that_exists(committed_site: Site, place: Path) -> None:
    request = committed_site.request(place / "data")
    with pytest.raises(OwnerNeeded):
        plan_only(committed_site.services(), replace(request, owner=None))
    with pytest.raises(OwnerUnknown, match="no-such-account"):
        plan_only(committed_site.services(), replace(request, owner="no-such-account"))
    assert list(place.iterdir()) == []


@pytest.fixture
def mounted(place: Path) -> Iterator[Path]:
    """A file system of 128 MiB: more than the plan asks for."""
    disk = place / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root and the right to mount")
    disk.chmod(0o755)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path, leave: int) -> None:
    """Until no more than `leave` bytes are free, while others may write there, too."""
    with (disk / "filler").open("wb") as file:
        while (room := shutil.disk_usage(disk).free - leave) > 0:
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size + room)


def test_r07_a_disk_that_is_too_small_is_found_by_the_plan(
    committed_site: Site, mounted: Path
) -> None:
    fill(mounted, 10 << 20)
    with pytest.raises(DiskTooSmall, match="bytes free"):
        committed_site.restore(mounted / "data")
    assert not (mounted / "data").exists()


def test_r07_a_disk_that_fills_up_meanwhile_ends_the_restore_and_the_next_one_works(
    committed_site: Site, source_cluster: PostgresServer, mounted: Path
) -> None:
    reads: list[BlobName] = []

    class Filling(WatchedStore):
        def read_range(self, name: BlobName, offset: int, length: int) -> bytes:
            if name.path.endswith("base.pgdata.0003") and not reads:
                reads.append(name)
                fill(mounted, 4 << 20)
            return super().read_range(name, offset, length)

    services = committed_site.services()
    data = mounted / "data"
    with pytest.raises(DiskFull, match="no space left") as refused:
        restore(replace(services, store=Filling(services.store)), committed_site.request(data))
    assert refused.value.retryable
    assert (data / MARKER).exists()
    assert not startable(data)
    (mounted / "filler").unlink()
    committed_site.restore(data)
    assert verify_with_postgres(source_cluster.programs, data) == ""


def test_r01_a_volume_that_vanishes_after_the_plan_leaves_nothing_to_start(
    committed_site: Site, place: Path
) -> None:
    class Vanishing(WatchedStore):
        def read_range(self, name: BlobName, offset: int, length: int) -> bytes:
            if name.path.endswith("base.pgdata.0002"):
                raise BlobNotFound(f"{name} does not exist")
            return super().read_range(name, offset, length)

    services = committed_site.services()
    data = place / "data"
    with pytest.raises(BlobNotFound, match=r"base\.pgdata\.0002"):
        restore(replace(services, store=Vanishing(services.store)), committed_site.request(data))
    assert not startable(data)


def test_r26_two_restores_of_one_backup_at_once_do_not_disturb_one_another(
    committed_site: Site,
    source_cluster: PostgresServer,
    place: Path,
    start_restored: StartRestored,
) -> None:
    targets = [place / name / "data" for name in ("one", "two")]
    with ThreadPoolExecutor(2) as executor:
        list(executor.map(committed_site.restore, targets))
    expected = dump(source_cluster)
    for target in targets:
        assert verify_with_postgres(source_cluster.programs, target) == ""
        assert dump(start_restored(target, source_cluster)) == expected


def test_a_refused_plan_tells_every_reason(committed_site: Site, place: Path) -> None:
    request = committed_site.request(place / "data", tablespace_mapping={"/a": "b", "/c": "d"})
    with pytest.raises(NotRestorable) as refused:
        plan_only(committed_site.services(), request)
    assert "tablespace /a" in refused.value.fact
    assert "tablespace /c" in refused.value.fact


@pytest.fixture
def hurt_storage(azurite_account: EmulatedAccount) -> Iterator[HttpFaultProxy]:
    proxy = HttpFaultProxy(azurite_account.blob_url)
    yield proxy
    proxy.close()


def test_u19_short_busy_and_broken_replies_are_read_again(
    azurite_account: EmulatedAccount,
    hurt_storage: HttpFaultProxy,
    key_set: KeySet,
    source_cluster: PostgresServer,
    place: Path,
) -> None:
    through = replace(azurite_account, blob_url=hurt_storage.url)
    site = make_site(place / "site", key_set, source_cluster, storage=through)
    site.backup()
    hurt_storage.script(
        azure_error(GET_BLOB, 503, "ServerBusy", times=2),
        Fault(Harm.HALF_REPLY, GET_BLOB, times=2, skip=4),
        Fault(Harm.DROP_BEFORE, GET_BLOB, times=2, skip=8),
    )
    data = place / "restored" / "data"
    site.restore(data)
    assert len(hurt_storage.fired) == 6
    assert verify_with_postgres(source_cluster.programs, data) == ""


def test_r21_a_storage_that_stays_away_is_no_damage(committed_site: Site, place: Path) -> None:
    class Away(WatchedStore):
        def read_range(self, name: BlobName, offset: int, length: int) -> bytes:
            if offset > 0 and name.path.endswith("base.pgdata.0001"):
                raise StorageUnavailable(f"{name}: no answer")
            return super().read_range(name, offset, length)

    services = committed_site.services()
    data = place / "data"
    with pytest.raises(StorageUnavailable) as refused:
        restore(replace(services, store=Away(services.store)), committed_site.request(data))
    assert refused.value.retryable
    assert not isinstance(refused.value, SegmentCorrupt)
    assert not startable(data)
