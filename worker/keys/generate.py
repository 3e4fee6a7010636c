"""A development key set: what `pgkeep keys generate` and `local/` put in place of Key Vault."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from shared.errors import Conflict
from worker.keys.local_pem import MINIMUM_RSA_BITS

_PUBLIC_EXPONENT = 65537
PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class KeyFileExists(Conflict):
    """A key file that is there already; it was not touched."""

    code = "key-file-exists"
    hint = "Choose another folder. A key that opens backups is never overwritten."


@dataclass(frozen=True, slots=True)
class KeyPair:
    private: Path
    public: Path


@dataclass(frozen=True, slots=True)
class KeySet:
    """Paths of PEM files. `manifest` is the pair that the writer of backups may unwrap with."""

    wrapping: KeyPair
    escrow: KeyPair
    manifest: KeyPair
    signing: KeyPair

    @classmethod
    def below(cls, folder: Path) -> Self:
        """Where the set of `folder` lies; whether it exists is another question."""
        return cls(*(_pair(folder, name) for name in ("wrapping", "escrow", "manifest", "signing")))


def generate_key_set(folder: Path) -> KeySet:
    """RSA-3072 pairs to wrap, Ed25519 to sign; unencrypted PEM files of mode 0600.

    Raises KeyFileExists before anything is written.
    """
    keys = KeySet.below(folder)
    _refuse_existing(keys)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for pair in (keys.wrapping, keys.escrow, keys.manifest):
        _write_pair(pair, rsa.generate_private_key(_PUBLIC_EXPONENT, MINIMUM_RSA_BITS))
    _write_pair(keys.signing, ed25519.Ed25519PrivateKey.generate())
    return keys


def _pair(folder: Path, name: str) -> KeyPair:
    return KeyPair(folder / f"{name}.private.pem", folder / f"{name}.public.pem")


def _refuse_existing(keys: KeySet) -> None:
    for pair in (keys.wrapping, keys.escrow, keys.manifest, keys.signing):
        for path in (pair.private, pair.public):
            if path.exists():
                raise KeyFileExists(f"{path} exists")


def _write_pair(pair: KeyPair, private: PrivateKey) -> None:
    secret = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _create(pair.private, secret)
    _create(pair.public, public)


def _create(path: Path, data: bytes) -> None:
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
