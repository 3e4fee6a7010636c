"""The bound compresses every byte of the cluster's files once, and no WAL."""

import secrets
from pathlib import Path

import zstandard

from local.benchmark.zstd_bound import compressed_size


def test_all_files_but_the_wal_are_compressed(tmp_path: Path) -> None:
    noise, zeros = secrets.token_bytes(5 << 20), bytes(5 << 20)
    for name, data in (("base/1", noise), ("global/2", zeros), ("pg_wal/3", noise)):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(data)
    size = compressed_size(tmp_path, level=1, threads=2)
    alone = len(zstandard.ZstdCompressor(1).compress(noise))
    assert alone <= size < alone + 4096
