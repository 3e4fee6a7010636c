"""Signed documents: RFC 8785 canonical JSON with a `signature` member.

    {"created_at":…,"format":…,…,"signature":{"algorithm":…,"key_id":…,"value":<base64url>}}

The signature covers the canonical JSON of everything else. A document is believed only when a
*pinned* key signed it: pinned keys come from configuration, never from the storage that holds the
document. A reader demands that the stored bytes are canonical, so a document has one spelling:
duplicate members, other whitespace, -0 or a flipped byte are refused, and the SHA-256 of the
stored bytes names the document (hash chain of backups).

The reader's order: bound, parse, authenticate, then interpret.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Protocol, TypeVar, get_args

import rfc8785
from cryptography.exceptions import InvalidSignature
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from shared.errors import Corrupt, Denied, Refused
from shared.repository.base64url import Base64Url
from shared.repository.pinned_keys import SIGNATURE_LENGTH, Algorithm, PinnedKey

# A document is at most 1 MiB (20-artefact-format.md §3).
MAX_DOCUMENT = 1 << 20
_FORMAT = re.compile(r"(pgkeep-[a-z]+)-([1-9]\d{0,5})")

M = TypeVar("M", bound=BaseModel)


class DocumentInvalid(Corrupt):
    """Bytes that are no document: too large, not canonical JSON, or off its schema."""

    code = "document-invalid"


class SignatureInvalid(Corrupt):
    """A document that the key it names did not sign."""

    code = "signature-invalid"
    hint = "The document was changed after it was signed: look at who can write to the repository."


class SignerNotPinned(Denied):
    """A document signed by a key that the settings do not name."""

    code = "signer-not-pinned"
    hint = "If the key is yours, add its public half to keys.pinned; otherwise distrust the blob."


class SignerRevoked(Denied):
    """A document dated after the moment from which its signer is no longer believed."""

    code = "signer-revoked"
    hint = "Take a new backup with the current signing key; keys.pinned holds the date."


class FormatTooNew(Refused):
    """A document of a later format version than this release knows."""

    code = "format-too-new"
    hint = "Use a newer release of pgkeep."


class DocumentNotWritable(Refused):
    """A document that no reader would accept, found before it was written."""

    code = "document-not-writable"
    hint = "A document holds at most 1 MiB; raise worker.volume_bytes when it lists many volumes."


class Signer(Protocol):
    """Who signs; worker.keys.signing has the implementations."""

    @property
    def key_id(self) -> str:
        """What readers pin."""
        ...

    @property
    def algorithm(self) -> Algorithm: ...

    def sign(self, data: bytes) -> bytes:
        """64 bytes, for `data` whole (not its digest)."""
        ...


# By key id: `key_fingerprint` for PEM keys, the full id with version for Key Vault keys.
PinnedKeys = Mapping[str, PinnedKey]


class Signature(BaseModel):
    """The `signature` member; it has no other fields, for nothing signs them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: Algorithm
    key_id: Annotated[str, Field(min_length=1, max_length=512)]
    value: Annotated[Base64Url, Field(min_length=SIGNATURE_LENGTH, max_length=SIGNATURE_LENGTH)]


def document_digest(raw: bytes) -> str:
    """SHA-256 of the stored bytes in hex: what the next document of a hash chain names."""
    return hashlib.sha256(raw).hexdigest()


def sign_document(document: BaseModel, signer: Signer) -> bytes:
    """The bytes to store. The model has `created_at` and `format`, a Literal, newest last.

    Raises DocumentNotWritable for what `read_signed` would refuse: over 1 MiB, integers from 2^53.
    """
    _check_model(type(document))
    body = document.model_dump(mode="json", by_alias=True)
    unsigned = _canonical(body)
    signature = Signature(
        algorithm=signer.algorithm, key_id=signer.key_id, value=signer.sign(unsigned)
    )
    raw = _canonical({**body, "signature": signature.model_dump(mode="json")})
    if len(raw) > MAX_DOCUMENT:
        raise DocumentNotWritable(f"document would be {len(raw)} bytes, over {MAX_DOCUMENT}")
    return raw


def read_signed(raw: bytes, model: type[M], pinned: PinnedKeys) -> M:
    """Authenticate `raw`, then interpret it as `model`.

    The caller compares what the document says about itself with the name it was stored under.
    Raises DocumentInvalid, SignatureInvalid, SignerNotPinned, SignerRevoked, FormatTooNew.
    """
    _check_model(model)
    members = _parse(raw)
    signature = _interpret(rfc8785.dumps(members.pop("signature", None)), Signature)
    body = rfc8785.dumps(members)
    pin = _authenticate(body, signature, pinned)
    _refuse_revoked(members, signature.key_id, pin)
    _refuse_unknown_format(members, model)
    return _interpret(body, model)


def _check_model(model: type[BaseModel]) -> None:
    fields = model.model_fields
    if not {"format", "created_at"} <= fields.keys() or "signature" in fields:
        raise TypeError(f"{model.__name__} cannot be signed: it needs format and created_at")
    if not get_args(fields["format"].annotation):
        raise TypeError(f"{model.__name__}.format is no Literal")


def _canonical(value: dict[str, Any]) -> bytes:
    try:
        return rfc8785.dumps(value)
    except ValueError as error:
        raise DocumentNotWritable(f"document has no canonical json: {error}") from None


def _parse(raw: bytes) -> dict[str, Any]:
    # from_json bounds nesting (200 levels) and digits; comparing with the canonical spelling
    # refuses what it lets pass, such as duplicate members.
    if len(raw) > MAX_DOCUMENT:
        raise DocumentInvalid(f"document has {len(raw)} bytes, over {MAX_DOCUMENT}")
    try:
        value = from_json(raw, allow_inf_nan=False)
        canonical = rfc8785.dumps(value)
    except ValueError as error:
        raise DocumentInvalid(f"document is not strict json: {error}") from None
    if canonical != raw:
        raise DocumentInvalid("document is not in the canonical form of rfc 8785")
    if not isinstance(value, dict):
        raise DocumentInvalid("document is not a json object")
    return value


def _authenticate(body: bytes, signature: Signature, pinned: PinnedKeys) -> PinnedKey:
    pin = pinned.get(signature.key_id)
    if pin is None:
        raise SignerNotPinned(f"document is signed by {signature.key_id!r}, which is not pinned")
    if signature.algorithm != pin.algorithm:
        raise SignatureInvalid(
            f"{signature.key_id!r} signs {pin.algorithm}, not as the document says"
        )
    try:
        pin.verify(signature.value, body)
    except InvalidSignature:
        raise SignatureInvalid(f"document was not signed by {signature.key_id!r}") from None
    return pin


def _refuse_revoked(members: dict[str, Any], key_id: str, pin: PinnedKey) -> None:
    if pin.revoked_after is None:
        return
    created = _instant(members.get("created_at"))
    if created is None or created > pin.revoked_after:
        raise SignerRevoked(
            f"document of {created or 'no date'} is signed by {key_id!r}, "
            f"revoked after {pin.revoked_after}"
        )


def _instant(value: object) -> datetime | None:
    """An ISO 8601 time with its zone, or None."""
    try:
        instant = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return instant if instant.tzinfo is not None else None


def _refuse_unknown_format(members: dict[str, Any], model: type[BaseModel]) -> None:
    known = get_args(model.model_fields["format"].annotation)
    found = members.get("format")
    if found in known:
        return
    wanted, version = _FORMAT.fullmatch(known[-1]), _FORMAT.fullmatch(str(found))
    if wanted and version and wanted[1] == version[1] and int(version[2]) > int(wanted[2]):
        raise FormatTooNew(
            f"document has format {found}, this release reads {', '.join(known)}",
            hint=f"Use a release of pgkeep that reads {found}.",
        )
    raise DocumentInvalid(f"document has format {str(found)[:80]!r}, not {known[-1]!r}")


def _interpret(body: bytes, model: type[M]) -> M:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        member = ".".join(str(part) for part in first["loc"]) or "document"
        raise DocumentInvalid(f"{model.__name__}: {member}: {first['type']}") from None
