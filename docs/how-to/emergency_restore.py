"""Restore a full backup without pgkeep: downloaded blobs, the escrow key, and public libraries.

    python3 -m pip install tink zstandard cryptography
    python3 emergency_restore.py --repository ./downloaded --cluster orders \
        --label 20261122T030000Z-F-k3x7 --key escrow.pem --target /var/lib/postgresql/restored

emergency-restore.md, beside this file, says what to download and how to do every step by hand.
Writes only to --target and to the directories of --tablespace; all of them must be empty.
"""

import argparse
import base64
import getpass
import hashlib
import hmac
import io
import json
import os
import re
import shutil
import sys
import tarfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

try:
    import tink
    import zstandard
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from tink import secret_key_access, streaming_aead
    from tink.proto import aes_gcm_hkdf_streaming_pb2 as streaming
    from tink.proto import tink_pb2 as keyset
    from tink.proto.common_pb2 import SHA256
except ImportError as missing:
    sys.exit(f"{missing}\nRun: python3 -m pip install tink zstandard cryptography")

KEY_LENGTH = 32
CHUNK = 1 << 20
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
MANIFEST = "backup_manifest"
MARKER = "RESTORE_INCOMPLETE"
CONTROL_FILE = "global/pg_control"
CONTROL_FILE_UNTIL_DONE = "global/pg_control.restoring"
TABLESPACE_LINK = re.compile(r"pg_tblspc/[1-9][0-9]*")
say = partial(print, flush=True)


class Stop(Exception):
    """The restore cannot go on; the text says why and what to try."""


@dataclass(frozen=True)
class Backup:
    """Local folders that hold the blobs of one backup and its key records, and its document."""

    container: str  # full or incremental
    folder: Path
    key_folder: Path
    document: dict[str, Any]

    @property
    def tablespaces(self) -> list[dict[str, Any]]:
        return list(self.document.get("tablespaces", []))

    @property
    def manifests(self) -> list[dict[str, Any]]:
        return [item for item in self.document["objects"] if item["name"] == MANIFEST]

    def volumes(self, archive: str) -> list[dict[str, Any]]:
        found = [item for item in self.document["volumes"] if item["archive"] == archive]
        found.sort(key=lambda item: int(item["number"]))
        if [item["number"] for item in found] != list(range(len(found))):
            raise Stop(f"backup.json does not list all volumes of {archive}.")
        return found

    def associated_data(self, kid: str, name: str) -> bytes:
        """What binds a blob to its cluster, key and place: five lines, each with its newline."""
        identity = (self.document["cluster_uuid"], self.document["system_identifier"])
        place = f"{self.container}/{self.document['label']}/{name}"
        return "".join(f"{line}\n" for line in ("pgkeep1", *identity, kid, place)).encode()


@dataclass(frozen=True)
class Keys:
    """How to get a data key: unwrap it with the escrow key, or take one unwrapped elsewhere."""

    folder: Path
    escrow: rsa.RSAPrivateKey | None
    given: dict[str, bytes]

    def data_key(self, kid: str) -> bytes:
        records = [read_json(path) for path in self._record_files(kid)]
        recipients = [item for record in records for item in record["recipients"]]
        expected = unbase64(records[-1]["commitment"])  # says which key it is without telling it
        for candidate in self._candidates(kid, recipients):
            hkdf = HKDF(hashes.SHA256(), KEY_LENGTH, salt=b"pgkeep1-commit", info=kid.encode())
            if hmac.compare_digest(hkdf.derive(candidate), expected):
                return candidate
        raise Stop(
            f"No key you gave opens data key {kid}. Give with --key the private key of one of:\n  "
            + "\n  ".join(sorted({item["kek"] for item in recipients}))
        )

    def _record_files(self, kid: str) -> list[Path]:
        """The newest first: a rotation adds rewrap-1, rewrap-2, … beside the first record."""
        rewraps = list(self.folder.glob(f"{kid}.rewrap-*.json"))
        rewraps.sort(key=lambda path: int(path.name.split("-")[-1].split(".")[0]), reverse=True)
        first = self.folder / f"{kid}.json"
        if not first.is_file():
            raise Stop(f"{first} is missing: download the folder evidence/<cluster>/keys as well.")
        return [*rewraps, first]

    def _candidates(self, kid: str, recipients: list[dict[str, Any]]) -> Iterator[bytes]:
        if kid in self.given:
            yield self.given[kid]
        for recipient in recipients:
            if self.escrow and recipient["algorithm"] == "RSA-OAEP-256":
                try:
                    yield self.escrow.decrypt(unbase64(recipient["encrypted_key"]), OAEP)
                except ValueError:
                    continue  # wrapped to somebody else's key


def main() -> None:
    arguments = argument_parser("Restore one full backup without pgkeep.").parse_args()
    os.umask(0o077)
    try:
        restore(arguments)
    except (Stop, OSError, ValueError) as problem:
        sys.exit(f"\nSTOPPED: {problem}")


def argument_parser(purpose: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=purpose)
    add = partial(parser.add_argument, required=True)
    add("--repository", help="folder that holds the folders full, incremental and evidence")
    add("--cluster", help="name of the cluster, as in the blobs' paths")
    add("--label", help="name of the backup, e.g. 20261122T030000Z-F-k3x7")
    add("--target", help="new data directory: absent or empty")
    add = partial(parser.add_argument, type=pair, action="append", default=[])
    add("--data-key", metavar="KID=FILE", help="a key unwrapped elsewhere: 32 bytes, or base64")
    add("--tablespace", metavar="OID=DIR", help="where it goes: absolute, absent or empty")
    parser.add_argument("--key", metavar="PEM", help="escrow private key (RSA)")
    return parser


def restore(arguments: argparse.Namespace) -> None:
    target = Path(arguments.target).absolute()
    say("1/3 Reading backup.json")
    backup = open_backup(Path(arguments.repository), arguments.cluster, arguments.label)
    if parent := backup.document.get("parent"):
        raise Stop(f"It builds on {parent['label']}: run emergency_chain.py instead.")
    say("2/3 Looking at the blobs, the key and the directories to fill")
    check_blobs(backup)
    homes = archive_homes(backup, target, dict(arguments.tablespace))
    keys = read_keys(backup, arguments)
    keys.data_key(backup.document["kid"])
    say("3/3 Restoring")
    fill(backup, homes, keys)
    say(next_steps(backup.document, target))


def fill(backup: Backup, homes: dict[str, Path], keys: Keys) -> None:
    """The backup's files, as pg_basebackup would have left them; pg_control gets its name last."""
    target = homes["pgdata"]
    for home in homes.values():
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
    (target / MARKER).touch()
    for archive, home in homes.items():
        sealed = (read_sealed(backup, item, keys) for item in backup.volumes(archive))
        extract_archive(chain.from_iterable(sealed), home)
    for item in backup.manifests:
        with (target / MANIFEST).open("xb") as file:
            file.writelines(read_sealed(backup, item, keys))
    relocate_tablespaces(backup, homes)
    (target / CONTROL_FILE_UNTIL_DONE).rename(target / CONTROL_FILE)
    os.sync()
    (target / MARKER).unlink()


def open_backup(root: Path, cluster: str, label: str) -> Backup:
    container = "incremental" if "-I-" in label else "full"
    folder = root / container / cluster / label
    path = folder / "backup.json"
    if not path.is_file():
        raise Stop(f"{path} is missing. A backup without backup.json was never completed.")
    document = read_json(path)
    if (document["cluster"], document["label"]) != (cluster, label):
        raise Stop(f"{path} is of {document['cluster']} {document['label']}: it was moved.")
    return Backup(container, folder, root / "evidence" / cluster / "keys", document)


def check_blobs(backup: Backup) -> None:
    wanted, problems = [*backup.document["volumes"], *backup.manifests], []
    for item in wanted:
        path = backup.folder / item["name"]
        size = path.stat().st_size if path.is_file() else None
        if size != item["stored_size"]:
            found = "missing" if size is None else f"{size} bytes long"
            problems.append(f"{path} is {found}; it must have {item['stored_size']} bytes")
    if problems:
        raise Stop("\n  ".join(["Download these again:", *problems]))
    total = sum(item["plain_size"] for item in wanted)
    say(f"    {len(wanted)} blobs; {total / 1e9:.2f} GB will be written")


def archive_homes(backup: Backup, target: Path, moved: dict[str, str]) -> dict[str, Path]:
    """Archive → directory. `pgdata` comes last, so that pg_control is the end of the story."""
    homes = {}
    for tablespace in backup.tablespaces:
        oid = str(tablespace["oid"])
        inside = str(target / "pg_tblspc" / oid) if tablespace.get("in_place") else ""
        homes[oid] = Path(inside or moved.pop(oid, ""))
        if not homes[oid].is_absolute():
            raise Stop(
                f"Tablespace {oid} lay in {tablespace['path']}: say where it goes now"
                f" with --tablespace {oid}=/absolute/new/directory"
            )
    homes["pgdata"] = target
    unknown = {item["archive"] for item in backup.document["volumes"]} - set(homes) | set(moved)
    if unknown:
        raise Stop(f"backup.json knows no tablespace {', '.join(sorted(unknown))}.")
    for home in homes.values():
        if home.exists() and any(home.iterdir()):
            raise Stop(f"{home} is not empty. Nothing was changed; choose another directory.")
    return homes


def read_keys(backup: Backup, arguments: argparse.Namespace) -> Keys:
    given = {kid: read_data_key(Path(name)) for kid, name in arguments.data_key}
    escrow = read_private_key(Path(arguments.key)) if arguments.key else None
    if escrow is None and not given:
        raise Stop("Give the escrow private key with --key, or data keys with --data-key.")
    return Keys(backup.key_folder, escrow, given)


def read_private_key(path: Path) -> rsa.RSAPrivateKey:
    pem, password = path.read_bytes(), None
    if b"ENCRYPTED" in pem:
        password = getpass.getpass(f"Password of {path}: ").encode()
    key = serialization.load_pem_private_key(pem, password)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Stop(f"{path} is not an RSA key.")
    return key


def read_data_key(path: Path) -> bytes:
    raw = path.read_bytes()
    key = raw if len(raw) == KEY_LENGTH else unbase64(raw.decode("ascii", "replace").strip())
    if len(key) != KEY_LENGTH:
        raise Stop(f"{path} does not hold a data key of {KEY_LENGTH} bytes.")
    return key


def read_sealed(backup: Backup, item: dict[str, Any], keys: Keys) -> Iterator[bytes]:
    """Plaintext of one blob, authenticated; stops with an error when it is not all of it."""
    name, digest, size = item["name"], hashlib.sha256(), 0
    path, kid = backup.folder / name, item.get("kid", backup.document["kid"])
    say(f"    {name}: {item['plain_size'] / 1e6:.1f} MB")
    try:
        with path.open("rb") as blob:
            opened = decrypting(keys.data_key(kid), blob, backup.associated_data(kid, name))
            for chunk in decompressed(opened):
                digest.update(chunk)
                size += len(chunk)
                show_progress(size, item["plain_size"])
                yield chunk
    except (tink.TinkError, zstandard.ZstdError) as problem:
        raise Stop(diagnosis(path, item, problem)) from None
    if (size, digest.hexdigest()) != (item["plain_size"], item["plain_sha256"]):
        raise Stop(f"{path} opens, but holds other bytes than backup.json says.")


def decrypting(data_key: bytes, blob: io.BufferedReader, aad: bytes) -> io.BufferedReader:
    """Tink's AES256_GCM_HKDF_1MB with this very key."""
    params = streaming.AesGcmHkdfStreamingParams(
        ciphertext_segment_size=1 << 20, derived_key_size=KEY_LENGTH, hkdf_hash_type=SHA256
    )
    value = streaming.AesGcmHkdfStreamingKey(params=params, key_value=data_key)
    key_data = keyset.KeyData(
        type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
        value=value.SerializeToString(),
        key_material_type=keyset.KeyData.SYMMETRIC,
    )
    key = keyset.Keyset.Key(
        key_id=1, status=keyset.ENABLED, output_prefix_type=keyset.RAW, key_data=key_data
    )
    keys = keyset.Keyset(primary_key_id=1, key=[key]).SerializeToString()
    streaming_aead.register()
    handle = tink.proto_keyset_format.parse(keys, secret_key_access.TOKEN)
    opened = handle.primitive(streaming_aead.StreamingAead).new_decrypting_stream(blob, aad)
    return io.BufferedReader(opened, CHUNK)


def decompressed(opened: io.BufferedReader) -> Iterator[bytes]:
    """Data volumes are zstd; small objects may be stored as they are."""
    source: Any = opened
    if opened.peek(len(ZSTD_MAGIC)).startswith(ZSTD_MAGIC):
        decompressor = zstandard.ZstdDecompressor(max_window_size=8 << 20)
        source = decompressor.stream_reader(opened, read_size=CHUNK, read_across_frames=True)
    while chunk := source.read(CHUNK):
        yield chunk


def diagnosis(path: Path, item: dict[str, Any], problem: Exception) -> str:
    with path.open("rb") as blob:
        damaged = hashlib.file_digest(blob, "sha256").hexdigest() != item["sha256"]
    if damaged:
        return f"{path} is damaged (its SHA-256 is not that of backup.json): download it again."
    return f"{path} is the blob that was uploaded, but does not open: {problem}"


def extract_archive(chunks: Iterator[bytes], home: Path) -> None:
    """Only plain files and directories below `home`; links are made later, from backup.json."""
    source: Any = SimpleNamespace(read=lambda _size: next(chunks, b""))  # tarfile asks on and on
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            for member in tar:
                extract_member(tar, member, home)
    except tarfile.TarError as problem:
        raise Stop(f"The tar stream for {home} does not hold together: {problem}") from None
    deque(chunks, maxlen=0)  # what follows the last member is checked, too


def extract_member(tar: tarfile.TarFile, member: tarfile.TarInfo, home: Path) -> None:
    name = member.name.removeprefix("./")
    if member.issym() and TABLESPACE_LINK.fullmatch(name):
        return
    plain = member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
    if not plain or {"", ".", ".."} & set(name.split("/")):
        raise Stop(f"The backup holds {member.name!r}, which PostgreSQL never writes.")
    path = home / (CONTROL_FILE_UNTIL_DONE if name == CONTROL_FILE else name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        path.mkdir(exist_ok=True)
    else:
        with path.open("xb") as file:
            shutil.copyfileobj(tar.extractfile(member) or io.BytesIO(), file, CHUNK)
    path.chmod(member.mode & (0o750 if member.isdir() else 0o640))


def relocate_tablespaces(backup: Backup, homes: dict[str, Path]) -> None:
    """Links and tablespace_map, from which PostgreSQL makes the links anew when it starts."""
    target = homes["pgdata"]
    moved = [str(item["oid"]) for item in backup.tablespaces if not item.get("in_place")]
    for oid in moved:
        (target / "pg_tblspc" / oid).symlink_to(homes[oid])
    if (target / "tablespace_map").exists():
        lines = [f"{oid} {homes[oid]}\n" for oid in moved]
        (target / "tablespace_map").write_text("".join(lines))


def next_steps(document: dict[str, Any], target: Path) -> str:
    steps = [f"\nDONE: every byte in {target} was authenticated. Next:"]
    if not document.get("wal_included"):
        steps.append("* WAL is not part of this backup: put it within reach of restore_command.")
    steps += [
        f"* pg_verifybackup --no-parse-wal --ignore=tablespace_map {target}",
        f"* chown -R postgres: {target}   (and the tablespaces)",
        "* Before the first start append to postgresql.auto.conf:  archive_mode = off",
        f"* pg_ctl -D {target} start",
    ]
    return "\n  ".join(steps)


def unbase64(text: str) -> bytes:
    plain = text.rstrip("=").replace("+", "-").replace("/", "_")
    return base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4))


def read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as problem:
        raise Stop(f"{path} is no JSON: {problem}. Download it again.") from None
    return content


def pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"      {done * 100 // max(total, 1):3d} %", end="\r", file=sys.stderr)


if __name__ == "__main__":
    main()
