"""Turn downloaded WAL blobs into plain files without pgkeep, for PostgreSQL's own restore_command.

    python3 emergency_wal.py --repository ./downloaded --cluster orders --key escrow.pem \
        --target /srv/wal

Afterwards `restore_command = 'cp /srv/wal/%f %p'` replays them. Needs emergency_restore.py beside
it; emergency-restore.md says what to download. Writes only to --target, absent or empty.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import emergency_restore as restore
import tink
import zstandard

PIECE = re.compile(
    r"(?P<segment>[0-9A-F]{24})\.(?P<start>[0-9A-F]{8})-(?P<stop>[0-9A-F]{8})\.partial"
)
SEGMENT_NAME = 24  # letters of a segment's name
SEGMENT_SIZE_OFFSET = 32  # XLogLongPageHeaderData: xlp_seg_size, behind 24 + 8 bytes


@dataclass(frozen=True)
class Archive:
    """The downloaded WAL of one cluster, and the keys that may open it, the newest first."""

    identity: tuple[str, str]
    data_keys: dict[str, bytes]

    def open(self, path: Path) -> bytes:
        """Plaintext of one blob. A download lost the name of its key: each is tried."""
        for kid, data_key in self.data_keys.items():
            lines = ("pgkeep1", *self.identity, kid, f"wal/{path.name}")
            aad = "".join(f"{line}\n" for line in lines).encode()
            try:
                with path.open("rb") as blob:
                    opened = restore.decrypting(data_key, blob, aad)
                    return b"".join(restore.decompressed(opened))
            except (tink.TinkError, zstandard.ZstdError):
                continue
        raise restore.Stop(
            f"{path} opens with none of the cluster's {len(self.data_keys)} WAL keys: it is "
            "damaged, or under another name than the one it was written for. Download it again."
        )


def main() -> None:
    arguments = parse_arguments()
    os.umask(0o077)
    try:
        written = write_plain_files(arguments)
    except (restore.Stop, OSError, ValueError) as problem:
        sys.exit(f"\nSTOPPED: {problem}")
    restore.say(f"\nDONE: {written} files in {arguments.target}, every byte authenticated.")
    restore.say(f"restore_command = 'cp {arguments.target}/%f %p'")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Open WAL blobs without pgkeep.")
    add = partial(parser.add_argument, required=True)
    add("--repository", help="folder that holds the folders wal and evidence")
    add("--cluster", help="name of the cluster, as in the blobs' paths")
    add("--target", help="new directory for the plain files: absent or empty")
    parser.add_argument("--key", metavar="PEM", help="escrow private key (RSA)")
    parser.add_argument(
        "--data-key", metavar="KID=FILE", type=restore.pair, action="append", default=[]
    )
    return parser.parse_args()


def write_plain_files(arguments: argparse.Namespace) -> int:
    root, target = Path(arguments.repository), Path(arguments.target)
    if target.exists() and any(target.iterdir()):
        raise restore.Stop(f"{target} is not empty. Nothing was changed; choose another directory.")
    archive = read_archive(root, arguments)
    blobs = sorted(path for path in (root / "wal" / arguments.cluster).rglob("*") if path.is_file())
    if not blobs:
        raise restore.Stop(f"{root / 'wal' / arguments.cluster} holds nothing: download it.")
    target.mkdir(parents=True, exist_ok=True)
    pieces = [path for path in blobs if PIECE.fullmatch(path.name)]
    whole = {path.name: path for path in blobs if path not in pieces}
    for name, path in whole.items():
        write(target / name, archive.open(path))
    alone = [path for path in pieces if path.name[:SEGMENT_NAME] not in whole]
    names = [write(target / name, content) for name, content in joined(archive, alone)]
    return len(whole) + len(names)


def read_archive(root: Path, arguments: argparse.Namespace) -> Archive:
    evidence = root / "evidence" / arguments.cluster
    document = restore.read_json(evidence / "cluster.json")
    records = [restore.read_json(path) for path in (evidence / "keys").glob("k*.json")]
    dates = {item["kid"]: item["created_at"] for item in records if item["purpose"] == "wal"}
    given = {kid: restore.read_data_key(Path(name)) for kid, name in arguments.data_key}
    escrow = restore.read_private_key(Path(arguments.key)) if arguments.key else None
    keys = restore.Keys(evidence / "keys", escrow, given)
    newest_first = sorted(dates, key=lambda kid: dates[kid], reverse=True)
    return Archive(
        (document["cluster_uuid"], document["system_identifier"]),
        {kid: keys.data_key(kid) for kid in newest_first},
    )


def joined(archive: Archive, pieces: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Segments that exist in pieces only, filled up with zeros, where PostgreSQL stops reading."""
    by_segment: dict[str, list[tuple[int, int, Path]]] = {}
    for path in pieces:
        match = PIECE.fullmatch(path.name)
        if match:
            place = (int(match["start"], 16), int(match["stop"], 16), path)
            by_segment.setdefault(match["segment"], []).append(place)
    for name, places in by_segment.items():
        content = bytearray()
        for start, stop, path in sorted(places):
            if start <= len(content) < stop:
                content += archive.open(path)[len(content) - start :]
        if content:
            size = int.from_bytes(content[SEGMENT_SIZE_OFFSET : SEGMENT_SIZE_OFFSET + 4], "little")
            yield name, bytes(content).ljust(size, b"\0")


def write(path: Path, content: bytes) -> str:
    restore.say(f"    {path.name}: {len(content) / 1e6:.1f} MB")
    with path.open("xb") as file:
        file.write(content)
    return path.name


if __name__ == "__main__":
    main()
