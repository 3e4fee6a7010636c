"""The emergency script opens downloaded WAL, without our code in reach, as PostgreSQL wrote it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from local.postgres_server import PostgresServer
from shared.domain.cluster import cluster_name
from shared.domain.wal_segment import WalFileName, WalPiece
from shared.jobs.wal_events import WalEvent
from shared.repository.layout import wal_blob
from tests.harness.worker_services import CHECKOUT, CLUSTER, Site
from worker.commands.cluster_identity import register
from worker.commands.wal_archive import WalArchive
from worker.keys.generate import KeySet

pytestmark = pytest.mark.integration

SCRIPT = CHECKOUT / "docs" / "how-to" / "emergency_wal.py"
MEBIBYTE = 1 << 20
CUT = 5 * MEBIBYTE + 12345


class Unheard:
    def send(self, event: WalEvent) -> None:
        raise AssertionError(f"nothing should be reported: {event}")


@pytest.fixture
def written(site: Site, source_cluster: PostgresServer) -> dict[str, bytes]:
    """One whole segment, the beginning of the next one in two pieces, and a history file."""
    source_cluster.query("CREATE TABLE IF NOT EXISTS filler AS SELECT generate_series(1, 9999) n")
    source_cluster.query("SELECT pg_switch_wal()")
    source_cluster.query("CHECKPOINT")
    names = sorted(
        path.name for path in (source_cluster.data / "pg_wal").glob("0000????????????????????")
    )
    first, second = names[0], names[1]
    content = {name: (source_cluster.data / "pg_wal" / name).read_bytes() for name in names[:2]}
    [(system,)] = source_cluster.query("SELECT system_identifier::text FROM pg_control_system()")
    services = site.services()
    cluster = register(services, cluster_name(CLUSTER), system)
    history = b"1\t0/3000000\tno recovery target specified\n"
    tail = WalFileName.parse(second)
    with WalArchive(services, cluster, Unheard(), "receive") as archive:
        archive.put(WalFileName.parse(first), content[first])
        archive.put(WalFileName.parse("00000002.history"), history)
        archive.put(WalPiece.of(tail, 0, MEBIBYTE), content[second][:MEBIBYTE])
    with WalArchive(services, cluster, Unheard(), "receive") as archive:  # another session and key
        for start, stop in ((0, 2 * MEBIBYTE), (2 * MEBIBYTE, CUT)):
            archive.put(WalPiece.of(tail, start, stop), content[second][start:stop])
    return {
        first: content[first],
        second: content[second][:CUT].ljust(len(content[second]), b"\0"),
        "00000002.history": history,
    }


def run(repository: Path, target: Path, key: Path) -> subprocess.CompletedProcess[str]:
    """In isolation, as a stranger would: neither our code nor its folder is importable."""
    return subprocess.run(
        [
            *(sys.executable, "-I", "-W", "error", str(SCRIPT)),
            *("--repository", str(repository), "--cluster", CLUSTER),
            *("--key", str(key), "--target", str(target)),
        ],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )


def downloaded(site: Site, folder: Path) -> Path:
    """As a download leaves it: files alone, without what storage knew beside them."""
    visible = shutil.ignore_patterns(".*")
    return Path(shutil.copytree(site.repository, folder, ignore=visible))


def test_whole_segments_pieces_and_history_come_out_as_postgresql_wrote_them(
    site: Site, written: dict[str, bytes], key_set: KeySet, tmp_path: Path
) -> None:
    repository = downloaded(site, tmp_path / "downloaded")
    done = run(repository, tmp_path / "wal", key_set.escrow.private)
    assert done.returncode == 0, done.stderr
    assert f"restore_command = 'cp {tmp_path / 'wal'}/%f %p'" in done.stdout
    assert {path.name: path.read_bytes() for path in (tmp_path / "wal").iterdir()} == written


def test_a_changed_blob_a_moved_one_and_a_filled_target_are_refused(
    site: Site, written: dict[str, bytes], key_set: KeySet, tmp_path: Path
) -> None:
    repository = downloaded(site, tmp_path / "downloaded")
    segment = next(name for name in written if "." not in name)
    blob = wal_blob(cluster_name(CLUSTER), WalFileName.parse(segment))
    path = repository / blob.container / blob.path
    content = bytearray(path.read_bytes())
    path.rename(path.with_name(f"{segment[:-1]}{'1' if segment[-1] != '1' else '2'}"))
    moved = run(repository, tmp_path / "moved", key_set.escrow.private)
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    changed = run(repository, tmp_path / "changed", key_set.escrow.private)
    filled = run(repository, tmp_path, key_set.escrow.private)
    for done, words in (
        (moved, "opens with none"),
        (changed, "opens with none"),
        (filled, "not empty"),
    ):
        assert done.returncode == 1
        assert "STOPPED: " in done.stderr
        assert words in done.stderr
