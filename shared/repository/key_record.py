"""Key records: a data key, wrapped to the recipients who may open what was sealed under it.

Written, signed and create-only, before any byte is sealed under the key. Rotation of a wrapping
key adds a record with the next `rewrap` number; the data and the earlier records stay.
"""

import secrets
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Literal, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import AwareDatetime, Field, model_validator

from shared.domain.field_types import Cluster
from shared.errors import Refused
from shared.repository.base64url import Base64Url
from shared.repository.documents import Document
from shared.repository.signatures import Signer, sign_document

# AES-256; the commitment is one SHA-256 block.
DATA_KEY_LENGTH = 32
COMMITMENT_LENGTH = 32
# Key Vault and an offline escrow: losing one key must not lose the backups.
PRODUCTION_RECIPIENTS = 2
_COMMITMENT_SALT = b"pgkeep1-commit"
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_KID_LETTERS = 26  # 130 bits: no two writers ever choose the same


class TooFewRecipients(Refused):
    """A key record that a single lost key would make useless."""

    code = "too-few-recipients"
    hint = "Add an escrow key to keys.recipients; profile `development` accepts a single one."


class KeyPurpose(StrEnum):
    BACKUP = "backup"
    WAL = "wal"
    MANIFEST = "manifest"
    DUMP = "dump"


class Recipient(Document):
    """The data key under one wrapping key; `kek` is that key's full id, with its version."""

    kek: str = Field(min_length=1, max_length=512)
    algorithm: Literal["RSA-OAEP-256"] = "RSA-OAEP-256"
    # As long as the modulus: RSA-3072 to RSA-8192.
    encrypted_key: Annotated[Base64Url, Field(min_length=384, max_length=1024)]

    @property
    def holder(self) -> str:
        """The key without its version: what is lost together when a Key Vault key is purged."""
        return self.kek.rpartition("/")[0] or self.kek


class KeyRecord(Document):
    """`keys/<kid>.json` (`rewrap` 0) or `keys/<kid>.rewrap-<n>.json`."""

    format: Literal["pgkeep-key-1"] = "pgkeep-key-1"
    kid: str = Field(pattern=r"^k[a-z2-7]{26}$")
    cluster: Cluster
    cluster_uuid: str = Field(min_length=1, max_length=64)
    purpose: KeyPurpose
    algorithm: Literal["AES256_GCM_HKDF_1MB"] = "AES256_GCM_HKDF_1MB"
    commitment: Annotated[
        Base64Url, Field(min_length=COMMITMENT_LENGTH, max_length=COMMITMENT_LENGTH)
    ]
    recipients: tuple[Recipient, ...] = Field(min_length=1, max_length=16)
    created_at: AwareDatetime
    rewrap: int = Field(default=0, ge=0, lt=1_000_000)

    @model_validator(mode="after")
    def _recipients_differ(self) -> Self:
        keks = [recipient.kek for recipient in self.recipients]
        if len(keks) != len(set(keks)):
            raise ValueError("two recipients have one key")
        return self

    @property
    def escrowed(self) -> bool:
        """Whether the loss of any one wrapping key leaves another; if not, warn the operator."""
        holders = {recipient.holder for recipient in self.recipients}
        return len(holders) >= PRODUCTION_RECIPIENTS

    def wraps_same_key(self, other: "KeyRecord") -> bool:
        """Whether both records claim to hold one data key for one use."""
        rewritten = {"recipients", "created_at", "rewrap"}
        return self.model_dump(exclude=rewritten) == other.model_dump(exclude=rewritten)


def new_kid(choose: Callable[[str], str] = secrets.choice) -> str:
    return "k" + "".join(choose(_BASE32) for _ in range(_KID_LETTERS))


def commitment(data_key: bytes, kid: str) -> bytes:
    """32 bytes that fix the data key without telling it: GCM alone commits to no key."""
    derivation = HKDF(SHA256(), COMMITMENT_LENGTH, salt=_COMMITMENT_SALT, info=kid.encode())
    return derivation.derive(data_key)


def sign_key_record(record: KeyRecord, signer: Signer, *, production: bool) -> bytes:
    """The bytes to store. Raises TooFewRecipients, in the production profile only."""
    if production and not record.escrowed:
        keks = ", ".join(recipient.kek for recipient in record.recipients)
        raise TooFewRecipients(f"data key {record.kid} would be wrapped to {keks} alone")
    return sign_document(record, signer)


def effective_record(records: Sequence[KeyRecord]) -> KeyRecord:
    """The highest re-wrap of the same data key as the earliest record; at least one is given.

    Records come authenticated. A re-wrap that commits to another key never wins.
    """
    first = min(records, key=lambda record: record.rewrap)
    candidates = (record for record in records if record.wraps_same_key(first))
    return max(candidates, key=lambda record: record.rewrap)
