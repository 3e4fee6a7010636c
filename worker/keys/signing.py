"""Who signs documents: an Ed25519 key in a PEM file, or an EC P-256 key in Key Vault."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from shared.repository.pinned_keys import Algorithm, key_fingerprint
from worker.keys.key_file import KeyFileInvalid, load_private_key
from worker.keys.key_vault import RETRIED_METHODS, ClientFor, key_vault_errors, require_version


@dataclass(frozen=True, slots=True)
class PemSigner:
    """Signs with Ed25519; `key_id` is the fingerprint of the public key."""

    key_id: str
    _private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def load(cls, path: Path, pass_phrase: SecretStr | None = None) -> Self:
        """Raises the errors of key_file."""
        private = load_private_key(path, pass_phrase)
        if not isinstance(private, Ed25519PrivateKey):
            raise KeyFileInvalid(f"{path} holds no ed25519 key")
        return cls(key_fingerprint(private.public_key()), private)

    @property
    def algorithm(self) -> Algorithm:
        return "Ed25519"

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)


class KeyVaultSigner:
    """Signs with ES256 at Key Vault, which sees only the digest."""

    def __init__(self, key_id: str, client_for: ClientFor) -> None:
        """`key_id` carries its version. Raises KeyVaultKeyInvalid."""
        self._key_id = require_version(key_id)
        self._client_for = client_for

    @property
    def key_id(self) -> str:
        return self._key_id

    @property
    def algorithm(self) -> Algorithm:
        return "ES256"

    def sign(self, data: bytes) -> bytes:
        """Raises KeyVaultDenied, KeyVaultKeyDisabled, KeyVaultKeyMissing, KeyVaultKeyInvalid,
        KeyVaultUnavailable."""
        from azure.keyvault.keys.crypto import SignatureAlgorithm

        digest = hashlib.sha256(data).digest()
        with key_vault_errors(self._key_id), self._client_for(self._key_id) as client:
            signed = client.sign(SignatureAlgorithm.es256, digest, retry_on_methods=RETRIED_METHODS)
            return signed.signature
