"""Keys whose signatures are believed: configured, never read from the storage they vouch for."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from shared.errors import InvalidInput

# Both schemes give 64 bytes: R || S of RFC 8032 §5.1.6, r || s of RFC 7518 §3.4.
SIGNATURE_LENGTH = 64

Algorithm = Literal["Ed25519", "ES256"]


class PinnedKeyInvalid(InvalidInput):
    """A verification key that cannot be used."""

    code = "pinned-key-invalid"
    hint = "keys.pinned takes public keys in PEM: Ed25519, or EC on curve P-256."


@dataclass(frozen=True, slots=True)
class PinnedKey:
    """A public key whose signatures count, for documents dated up to `revoked_after`.

    The date is the document's own `created_at`: whoever stole the key can still antedate, and
    only the write-once time of the blob tells.
    """

    public_key: Ed25519PublicKey | EllipticCurvePublicKey
    revoked_after: datetime | None = None

    @classmethod
    def from_pem(cls, pem: bytes, revoked_after: datetime | None = None) -> Self:
        """Raises PinnedKeyInvalid. `revoked_after` carries its time zone."""
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            raise PinnedKeyInvalid("the pinned key is no public key in pem") from None
        if isinstance(key, Ed25519PublicKey):
            return cls(key, revoked_after)
        if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
            return cls(key, revoked_after)
        raise PinnedKeyInvalid("the pinned key is neither ed25519 nor ec p-256")

    @property
    def algorithm(self) -> Algorithm:
        return "Ed25519" if isinstance(self.public_key, Ed25519PublicKey) else "ES256"

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raises cryptography's InvalidSignature."""
        if len(signature) != SIGNATURE_LENGTH:
            raise InvalidSignature
        if isinstance(self.public_key, Ed25519PublicKey):
            self.public_key.verify(signature, data)
            return
        half = SIGNATURE_LENGTH // 2
        r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
        self.public_key.verify(encode_dss_signature(r, s), data, ECDSA(hashes.SHA256()))


def key_fingerprint(public_key: PublicKeyTypes) -> str:
    """`pem:` and the first 16 hex digits of the SHA-256 of the SubjectPublicKeyInfo.

    It names a key among a few; nothing is believed because a fingerprint matches.
    """
    spki = public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return f"pem:{hashlib.sha256(spki).hexdigest()[:16]}"
