"""The emergency script restores what the pipeline's stages wrote, without our code in reach."""

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from shared.repository.key_record import commitment
from shared.repository.object_aad import aad
from worker.pipeline.sealed_stream import SegmentSealer
from worker.pipeline.seekable_zstd import FrameCutter, FrameTable, compress_frame

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).parents[2] / "docs" / "how-to" / "emergency_restore.py"
CLUSTER = "orders"
LABEL = "20261122T030000Z-F-k3x7"
CLUSTER_UUID = "7e0a4c1e-0000-4000-8000-000000000001"
SYSTEM_IDENTIFIER = "7301234567890123456"
KID = "k" + "a" * 26
MANIFEST_KID = "k" + "b" * 26
DATA_KEY = bytes(range(32))
MANIFEST_KEY = bytes(range(32, 64))
MANIFEST = b'{"PostgreSQL-Backup-Manifest-Version": 2}\n'
MEBIBYTE = 1 << 20


def contents(size: int, seed: str) -> bytes:
    """Bytes that compress to about a half."""
    block = b"".join(hashlib.sha256(f"{seed}{i}".encode()).digest() + bytes(32) for i in range(512))
    return (block * (size // len(block) + 1))[:size]


PGDATA = {
    "backup_label": b"START WAL LOCATION: 0/2000028\n",
    "base/1/1259": contents(3 * MEBIBYTE + 17, "a"),
    "base/5/2619": contents(2 * MEBIBYTE, "b"),
    "base/5/empty": b"",
    "tablespace_map": b"16385 /mnt/lost/fast\n",
    "global/pg_control": contents(8192, "c"),
    "pg_wal/000000010000000000000002": contents(MEBIBYTE, "d"),
}
TABLESPACE = {"PG_17_202406281/5/16390": contents(MEBIBYTE, "e")}
IN_PLACE = {"PG_17_202406281/5/16400": b"in place"}


@dataclass(frozen=True)
class Scene:
    """A folder of downloaded blobs, the escrow key beside it, and where to restore to."""

    root: Path
    escrow: Path

    @property
    def backup(self) -> Path:
        return self.root / "full" / CLUSTER / LABEL

    @property
    def keys(self) -> Path:
        return self.root / "evidence" / CLUSTER / "keys"

    @property
    def target(self) -> Path:
        return self.root / "restored"

    @property
    def tablespace(self) -> Path:
        return self.root / "fast disk"

    def run(self, *more: str, key: Path | None = None) -> subprocess.CompletedProcess[str]:
        """In isolation: -I leaves out the current folder, the script's folder and PYTHONPATH."""
        return subprocess.run(
            [
                *(sys.executable, "-I", "-W", "error", str(SCRIPT)),
                *("--repository", str(self.root), "--cluster", CLUSTER, "--label", LABEL),
                *("--target", str(self.target), "--key", str(key or self.escrow)),
                *(more or ("--tablespace", f"16385={self.tablespace}")),
            ],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )


def tar_of(files: dict[str, bytes], extra: list[tarfile.TarInfo]) -> bytes:
    """As a server from version 15 on ends it: behind the last member."""
    buffer, end = io.BytesIO(), 0
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for member in extra:
            tar.addfile(member)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            tar.addfile(info, io.BytesIO(data))
            end = buffer.tell()
    return buffer.getvalue()[:end]


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o700
    return info


def sealed(data_key: bytes, kid: str, name: str, content: bytes) -> bytes:
    binding = aad(CLUSTER_UUID, SYSTEM_IDENTIFIER, kid, f"full/{LABEL}/{name}")
    sealer = SegmentSealer(data_key, binding, random=os.urandom)
    return b"".join([*sealer.feed(content), sealer.finish()])


def compressed(plain: bytes) -> bytes:
    cutter, table, frames = FrameCutter(), FrameTable(), []
    for plain_frame in [*cutter.feed(plain), *cutter.finish()]:
        frames.append(compress_frame(plain_frame))
        table.append(len(frames[-1]), len(plain_frame))
    return b"".join([*frames, table.to_bytes()])


def described(path: Path, stored: bytes, plain: bytes) -> dict[str, Any]:
    path.write_bytes(stored)
    return {
        "name": path.name,
        "stored_size": len(stored),
        "sha256": hashlib.sha256(stored).hexdigest(),
        "plain_size": len(plain),
        "plain_sha256": hashlib.sha256(plain).hexdigest(),
    }


def write_archive(scene: Scene, archive: str, tar: bytes, cut: int) -> list[dict[str, Any]]:
    """Volumes of `cut` bytes of tar, so that members go on from one volume to the next."""
    volumes = []
    for number, start in enumerate(range(0, len(tar), cut)):
        plain, name = tar[start : start + cut], f"base.{archive}.{number:04d}"
        stored = sealed(DATA_KEY, KID, name, compressed(plain))
        volume = described(scene.backup / name, stored, plain)
        volumes.append({**volume, "archive": archive, "number": number})
    return volumes


def write_key_record(
    scene: Scene, kid: str, data_key: bytes, key: rsa.RSAPublicKey, suffix: str = ""
) -> None:
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    recipients = [
        {
            "kek": name,
            "algorithm": "RSA-OAEP-256",
            "encrypted_key": unpadded(public.encrypt(data_key, oaep)),
        }
        for name, public in [
            ("https://vault.example/keys/backup/1", private_key("vault").public_key()),
            ("escrow/2026", key),
        ]
    ]
    record = {"kid": kid, "commitment": unpadded(commitment(data_key, kid))}
    text = json.dumps({**record, "recipients": recipients})
    (scene.keys / f"{kid}{suffix}.json").write_text(text)


def unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@cache
def private_key(owner: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 3072)


def write_private_key(path: Path, key: rsa.RSAPrivateKey) -> Path:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(pem)
    return path


def change_document(scene: Scene, **changes: object) -> None:
    path = scene.backup / "backup.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    escrow = private_key("escrow")
    scene = Scene(tmp_path, write_private_key(tmp_path / "escrow.pem", escrow))
    scene.backup.mkdir(parents=True)
    scene.keys.mkdir(parents=True)
    write_key_record(scene, KID, DATA_KEY, escrow.public_key())
    write_key_record(scene, MANIFEST_KID, MANIFEST_KEY, escrow.public_key())
    directories = [member("pg_tblspc", tarfile.DIRTYPE), member("./pg_wal/a", tarfile.DIRTYPE)]
    link = member("pg_tblspc/16385", tarfile.SYMTYPE, "/mnt/lost/fast")
    volumes = [
        *write_archive(scene, "16385", tar_of(TABLESPACE, []), 4 * MEBIBYTE),
        *write_archive(scene, "16399", tar_of(IN_PLACE, []), 4 * MEBIBYTE),
        *write_archive(scene, "pgdata", tar_of(PGDATA, [*directories, link]), 3_000_001),
    ]
    stored = sealed(MANIFEST_KEY, MANIFEST_KID, "backup_manifest", MANIFEST)
    manifest = described(scene.backup / "backup_manifest", stored, MANIFEST)
    document = {
        "cluster": CLUSTER,
        "cluster_uuid": CLUSTER_UUID,
        "system_identifier": SYSTEM_IDENTIFIER,
        "label": LABEL,
        "kid": KID,
        "wal_included": True,
        "volumes": volumes,
        "objects": [{**manifest, "kid": MANIFEST_KID}],
        "tablespaces": [
            {"oid": 16385, "path": "/mnt/lost/fast", "in_place": False},
            {"oid": 16399, "path": "pg_tblspc/16399", "in_place": True},
        ],
    }
    (scene.backup / "backup.json").write_text(json.dumps(document))
    return scene


def files_below(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def assert_stopped(run: subprocess.CompletedProcess[str], reason: str) -> None:
    assert run.returncode == 1
    assert reason in run.stderr
    assert "Traceback" not in run.stderr


def assert_not_startable(scene: Scene) -> None:
    assert not (scene.target / "global" / "pg_control").exists()
    assert (scene.target / "RESTORE_INCOMPLETE").exists()


def test_none_of_our_code_is_in_reach_of_the_script(tmp_path: Path) -> None:
    for package in ("shared", "worker", "functions", "local"):
        command = [sys.executable, "-I", "-c", f"import {package}"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        assert f"No module named '{package}'" in run.stderr.decode()


def test_a_backup_with_tablespaces_is_restored_byte_by_byte(scene: Scene) -> None:
    run = scene.run()
    assert run.returncode == 0, run.stderr
    assert "every byte" in run.stdout
    assert len(list(scene.backup.glob("base.pgdata.*"))) > 1
    expected = {
        **PGDATA,
        "tablespace_map": f"16385 {scene.tablespace}\n".encode(),
        "backup_manifest": MANIFEST,
        **{f"pg_tblspc/16399/{name}": data for name, data in IN_PLACE.items()},
    }
    assert files_below(scene.target) == expected
    assert files_below(scene.tablespace) == TABLESPACE
    assert (scene.target / "pg_tblspc" / "16385").readlink() == scene.tablespace
    assert (scene.target / "pg_wal" / "a").is_dir()
    modes = {path.stat().st_mode & 0o077 for path in scene.target.rglob("*")}
    assert modes == {0}


def test_a_key_that_was_rotated_opens_the_backup_with_the_new_escrow_key_alone(
    scene: Scene,
) -> None:
    new = private_key("new escrow")
    for kid, data_key in [(KID, DATA_KEY), (MANIFEST_KID, MANIFEST_KEY)]:
        write_key_record(scene, kid, data_key, new.public_key(), ".rewrap-10")
    run = scene.run(key=write_private_key(scene.root / "new.pem", new))
    assert run.returncode == 0, run.stderr


def test_a_key_unwrapped_elsewhere_takes_the_place_of_the_escrow_key(scene: Scene) -> None:
    (scene.root / "raw").write_bytes(DATA_KEY)
    (scene.root / "text").write_text(base64.b64encode(MANIFEST_KEY).decode() + "\n")
    given = ["--data-key", f"{KID}=raw", "--data-key", f"{MANIFEST_KID}=text"]
    foreign = write_private_key(scene.root / "foreign.pem", private_key("foreign"))
    run = scene.run(*given, "--tablespace", f"16385={scene.tablespace}", key=foreign)
    assert run.returncode == 0, run.stderr


def test_a_foreign_key_is_refused_with_the_names_of_those_that_fit(scene: Scene) -> None:
    run = scene.run(key=write_private_key(scene.root / "foreign.pem", private_key("foreign")))
    assert_stopped(run, "escrow/2026")
    assert not scene.target.exists()


def test_a_record_that_wraps_another_key_than_it_commits_to_is_refused(scene: Scene) -> None:
    path = scene.keys / f"{KID}.json"
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "commitment": unpadded(bytes(32))}))
    assert_stopped(scene.run(), "No key you gave opens data key")


@pytest.mark.parametrize("name", ["base.pgdata.0001", "base.16385.0000", "backup_manifest"])
def test_a_damaged_blob_is_named_and_the_restore_cannot_be_started(scene: Scene, name: str) -> None:
    blob = bytearray((scene.backup / name).read_bytes())
    blob[len(blob) // 2] ^= 1
    (scene.backup / name).write_bytes(blob)
    assert_stopped(scene.run(), f"{name} is damaged")
    assert_not_startable(scene)


def test_a_volume_under_the_name_of_another_does_not_open(scene: Scene) -> None:
    document = json.loads((scene.backup / "backup.json").read_bytes())
    first, second = (item for item in document["volumes"] if item["archive"].startswith("16"))
    (scene.backup / first["name"]).write_bytes((scene.backup / second["name"]).read_bytes())
    first.update({**second, **{name: first[name] for name in ("name", "archive", "number")}})
    change_document(scene, volumes=document["volumes"])
    assert_stopped(scene.run(), f"{first['name']} is the blob that was uploaded, but does not open")
    assert_not_startable(scene)


def test_a_missing_and_a_cut_blob_are_both_named_before_anything_is_written(scene: Scene) -> None:
    (scene.backup / "base.16385.0000").unlink()
    cut = scene.backup / "base.pgdata.0000"
    cut.write_bytes(cut.read_bytes()[:-1])
    run = scene.run()
    assert_stopped(run, "base.16385.0000 is missing")
    assert "base.pgdata.0000 is" in run.stderr
    assert not scene.target.exists()


def test_a_tablespace_without_a_new_home_is_asked_for_before_anything_is_written(
    scene: Scene,
) -> None:
    run = scene.run("--tablespace", f"99999={scene.tablespace}")
    assert_stopped(run, "--tablespace 16385=/absolute/new/directory")
    assert not scene.target.exists()


def test_a_directory_that_is_not_empty_stays_as_it_is(scene: Scene) -> None:
    scene.target.mkdir()
    (scene.target / "precious").write_text("mine")
    assert_stopped(scene.run(), "is not empty")
    assert files_below(scene.target) == {"precious": b"mine"}


def test_a_volume_missing_from_the_document_is_noticed(scene: Scene) -> None:
    document = json.loads((scene.backup / "backup.json").read_bytes())
    rest = [item for item in document["volumes"] if item["name"] != "base.pgdata.0000"]
    change_document(scene, volumes=rest)
    assert_stopped(scene.run(), "does not list all volumes of pgdata")


def test_a_document_of_another_cluster_opens_nothing(scene: Scene) -> None:
    change_document(scene, system_identifier="7301234567890123457")
    assert_stopped(scene.run(), "does not open")
    assert_not_startable(scene)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (member("../outside", tarfile.DIRTYPE), "never writes"),
        (member("/outside", tarfile.DIRTYPE), "never writes"),
        (member("base/link", tarfile.SYMTYPE, "/etc"), "never writes"),
        (member("base/hard", tarfile.LNKTYPE, "backup_label"), "never writes"),
        (member("base/fifo", tarfile.FIFOTYPE), "never writes"),
    ],
    ids=["parent", "absolute", "link", "hard link", "fifo"],
)
def test_a_member_that_could_write_elsewhere_is_refused(
    scene: Scene, bad: tarfile.TarInfo, reason: str
) -> None:
    for old in scene.backup.glob("base.pgdata.*"):
        old.unlink()
    document = json.loads((scene.backup / "backup.json").read_bytes())
    others = [item for item in document["volumes"] if item["archive"] != "pgdata"]
    volumes = write_archive(scene, "pgdata", tar_of(PGDATA, [bad]), 10 * MEBIBYTE)
    change_document(scene, volumes=[*others, *volumes])
    assert_stopped(scene.run(), reason)
    assert_not_startable(scene)
    assert not (scene.root / "outside").exists()


def test_the_steps_by_hand_in_the_how_to_open_a_volume(scene: Scene) -> None:
    python = SCRIPT.with_name("emergency-restore.md").read_text().split("```python\n")[1]
    (scene.root / "open.py").write_text(textwrap.dedent(python.split("```")[0]))
    name = "base.16399.0000"
    binding = aad(CLUSTER_UUID, SYSTEM_IDENTIFIER, KID, f"full/{LABEL}/{name}")
    (scene.root / "aad").write_bytes(binding)
    (scene.root / "data-key").write_bytes(DATA_KEY)
    command = [sys.executable, "-I", "open.py", "data-key", "aad", str(scene.backup / name)]
    run = subprocess.run(command, cwd=scene.root, capture_output=True, check=False)
    assert run.stdout == tar_of(IN_PLACE, []), run.stderr
