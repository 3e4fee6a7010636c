"""Fetch incremental backups as they are, as pg_basebackup would have written them.

`python -m local.benchmark.chain.raw_links --config READER --into FOLDER LABEL…`: a directory for
each label, ready for pg_combinebackup. Blobs are opened in parallel, as pgkeep's own readers do.
"""

import argparse
import subprocess
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from local.benchmark.measure import ContenderFailed
from local.benchmark.pgkeep import CLUSTER
from shared.domain.backup import BackupLabel
from shared.domain.cluster import cluster_name
from shared.repository import layout
from shared.repository.backups import read_backup
from shared.repository.layout import BackupRef
from shared.settings import load
from worker import wiring
from worker.commands.opened_backup import OpenedBackup, open_backup
from worker.commands.services import Services
from worker.pipeline.sealed_download import read_whole

_DEPTH = 4


class _Silent:
    def phase(self, name: str) -> None:
        pass

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        pass


def fetch(services: Services, label: str, folder: Path) -> None:
    """Of a cluster without tablespaces: one archive."""
    ref = BackupRef(cluster_name(CLUSTER), BackupLabel.parse(label))
    backup = open_backup(services, read_backup(services.store, ref, services.pinned))
    folder.mkdir()
    with ThreadPoolExecutor(services.settings.worker.transfer_threads) as executor:
        unpack = ["tar", "--extract", "--ignore-zeros", "--no-same-owner", f"--directory={folder}"]
        with subprocess.Popen(unpack, stdin=subprocess.PIPE) as tar:
            if tar.stdin is not None:
                tar.stdin.writelines(_plain(backup, executor))
                tar.stdin.close()
        if tar.returncode:
            raise ContenderFailed(f"tar ended with {tar.returncode} for {label}")
        (folder / layout.BACKUP_MANIFEST).write_bytes(backup.manifest(executor))


def _plain(backup: OpenedBackup, executor: Executor) -> Iterator[bytes]:
    """The tar stream, one volume behind the other."""
    for volume in backup.stored.document.volumes:
        yield from read_whole(backup.volume(volume.name), executor, _DEPTH)


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("labels", nargs="+")
    arguments = parser.parse_args()
    services = wiring.services(load(arguments.config, {}), _Silent())
    for label in arguments.labels:
        fetch(services, label, arguments.into / label)


if __name__ == "__main__":
    _main()
