"""RSA keys in PEM files: the offline escrow, and development without Key Vault."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic import SecretStr

from shared.repository.key_record import Recipient
from shared.repository.pinned_keys import key_fingerprint
from worker.keys.key_file import KeyFileInvalid, load_private_key, load_public_key, parse_public_key
from worker.keys.key_ring import UnwrapFailed

# 128-bit strength, as AES-256 data keys deserve at least (NIST SP 800-57 part 1, table 2).
MINIMUM_RSA_BITS = 3072
# How messages call a key that stands in the settings themselves.
INLINE: Final = "a pem in the settings"
# RSA-OAEP-256 of RFC 7518 §4.3, which is also Key Vault's.
_OAEP = OAEP(MGF1(SHA256()), SHA256(), label=None)


@dataclass(frozen=True, slots=True)
class PemWrappingKey:
    """Wraps to an RSA public key."""

    kek: str
    _public: RSAPublicKey

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises the errors of key_file."""
        return cls._of(load_public_key(path), str(path))

    @classmethod
    def from_pem(cls, pem: str) -> Self:
        """Raises KeyFileInvalid."""
        return cls._of(parse_public_key(pem.encode(), INLINE), INLINE)

    @classmethod
    def _of(cls, public: PublicKeyTypes, source: str) -> Self:
        rsa = require_rsa(public, source)
        return cls(key_fingerprint(rsa), rsa)

    def wrap(self, data_key: bytes) -> Recipient:
        return Recipient(kek=self.kek, encrypted_key=self._public.encrypt(data_key, _OAEP))


@dataclass(frozen=True, slots=True)
class PemUnwrappingKey:
    """Unwraps with an RSA private key."""

    kek: str
    _private: RSAPrivateKey = field(repr=False)

    @classmethod
    def load(cls, path: Path, pass_phrase: SecretStr | None = None) -> Self:
        """Raises the errors of key_file."""
        private = load_private_key(path, pass_phrase)
        if not isinstance(private, RSAPrivateKey):
            raise KeyFileInvalid(f"{path} holds no rsa key")
        check_length(private.key_size, str(path))
        return cls(key_fingerprint(private.public_key()), private)

    def fits(self, kek: str) -> bool:
        return kek == self.kek

    def unwrap(self, recipient: Recipient) -> bytes:
        try:
            return self._private.decrypt(recipient.encrypted_key, _OAEP)
        except ValueError:
            raise UnwrapFailed(f"{self.kek} does not open what was wrapped to it") from None


def require_rsa(public: PublicKeyTypes, source: str) -> RSAPublicKey:
    """Raises KeyFileInvalid for a key of another kind, or one that is too short."""
    if not isinstance(public, RSAPublicKey):
        raise KeyFileInvalid(f"{source} holds no rsa key")
    check_length(public.key_size, source)
    return public


def check_length(bits: int, source: str) -> None:
    """Raises KeyFileInvalid for an RSA key that is too short."""
    if bits < MINIMUM_RSA_BITS:
        raise KeyFileInvalid(f"{source} holds an rsa key of {bits} bits, below {MINIMUM_RSA_BITS}")
