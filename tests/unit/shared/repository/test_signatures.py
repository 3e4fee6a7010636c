"""Signed documents: only unchanged bytes, signed by a pinned key that counts, are read."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
import rfc8785
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, ConfigDict

from shared.errors import PgkeepError
from shared.repository.base64url import encode
from shared.repository.pinned_keys import PinnedKey, PinnedKeyInvalid, key_fingerprint
from shared.repository.signatures import (
    MAX_DOCUMENT,
    DocumentInvalid,
    DocumentNotWritable,
    FormatTooNew,
    SignatureInvalid,
    SignerNotPinned,
    SignerRevoked,
    document_digest,
    read_signed,
    sign_document,
)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Letter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["pgkeep-letter-1", "pgkeep-letter-2"] = "pgkeep-letter-2"
    created_at: AwareDatetime = NOON
    text: str = ""
    number: int | float = 0


class AnyLetter(BaseModel):
    """What a later release, or a careless one, might write."""

    model_config = ConfigDict(extra="allow")

    format: Literal["pgkeep-letter-2", "pgkeep-letter-3", "pgkeep-note-9"] = "pgkeep-letter-2"
    created_at: AwareDatetime = NOON


@dataclass
class Ed25519:
    private: ed25519.Ed25519PrivateKey
    algorithm: Literal["Ed25519"] = "Ed25519"

    @property
    def key_id(self) -> str:
        return key_fingerprint(self.private.public_key())

    def sign(self, data: bytes) -> bytes:
        return self.private.sign(data)


@dataclass
class Es256:
    private: ec.EllipticCurvePrivateKey
    key_id: str = "https://vault.example/keys/sign/" + "0" * 32
    algorithm: Literal["ES256"] = "ES256"

    def sign(self, data: bytes) -> bytes:
        r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)


OURS = Ed25519(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = Ed25519(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)))
VAULT = Es256(ec.derive_private_key(4711, ec.SECP256R1()))
SIGNERS = pytest.mark.parametrize("signer", [OURS, VAULT], ids=["Ed25519", "ES256"])


def pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def pin(*signers: Ed25519 | Es256, revoked_after: datetime | None = None) -> dict[str, PinnedKey]:
    return {
        signer.key_id: PinnedKey.from_pem(pem(signer.private), revoked_after) for signer in signers
    }


PINNED = pin(OURS, VAULT)
SIGNED = sign_document(Letter(text="grüße\n\u2028", number=0.5), OURS)


def signed_text(text: str) -> bytes:
    """A document of any members, signed by our key: what only a bug of ours could write."""
    members = json.loads(text)
    unsigned = rfc8785.dumps(members)
    value = OURS.sign(unsigned)
    signature = {"algorithm": "Ed25519", "key_id": OURS.key_id, "value": encode(value)}
    return rfc8785.dumps({**members, "signature": signature})


@SIGNERS
def test_what_was_signed_is_read_back(signer: Ed25519 | Es256) -> None:
    letter = Letter(text="dear operator", number=2**53 - 1)
    assert read_signed(sign_document(letter, signer), Letter, PINNED) == letter


@given(st.text(st.characters(codec="utf-8")), st.integers(-(2**53) + 1, 2**53 - 1))
def test_writing_what_was_read_gives_the_same_bytes(text: str, number: int) -> None:
    raw = sign_document(Letter(text=text, number=number), OURS)
    assert sign_document(read_signed(raw, Letter, PINNED), OURS) == raw


@SIGNERS
def test_a_flipped_bit_anywhere_is_refused(signer: Ed25519 | Es256) -> None:
    raw = sign_document(Letter(text="grüße\n\u2028", number=0.5), signer)
    for position in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[position] ^= 1 << bit
            with pytest.raises(PgkeepError):
                read_signed(bytes(changed), Letter, PINNED)


@given(st.data())
def test_a_document_with_bytes_cut_doubled_or_inserted_is_refused(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(SIGNED)))
    end = data.draw(st.integers(start, len(SIGNED)))
    middle = data.draw(st.sampled_from([b"", SIGNED[start:end] * 2, b" ", b"\0"]))
    changed = SIGNED[:start] + middle + SIGNED[end:]
    if changed == SIGNED:
        return
    with pytest.raises(PgkeepError):
        read_signed(changed, Letter, PINNED)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"1" * 100_000)
@example(b'{"signature":' + b'"\\ud800"}')
@example(b'{"a":1e400}')
@example(b"null")
def test_any_other_bytes_are_refused_as_no_document(raw: bytes) -> None:
    with pytest.raises(DocumentInvalid):
        read_signed(raw, Letter, PINNED)


@given(st.dictionaries(st.sampled_from(["format", "created_at", "text", "number"]), JSON_VALUES))
def test_a_signed_document_off_its_schema_is_refused_by_name(members: dict[str, object]) -> None:
    try:
        raw = signed_text(json.dumps(members))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        return
    with pytest.raises(DocumentInvalid):
        read_signed(raw, Letter, PINNED)


def test_another_spelling_of_the_same_document_is_refused() -> None:
    members = json.loads(SIGNED)
    for spelling in (json.dumps(members), json.dumps(members, sort_keys=True, indent=1)):
        with pytest.raises(DocumentInvalid, match="canonical"):
            read_signed(spelling.encode(), Letter, PINNED)


def test_a_member_that_stands_twice_is_refused() -> None:
    doubled = SIGNED.replace(b'"number":0.5', b'"number":0.5,"number":0.5')
    with pytest.raises(DocumentInvalid, match="canonical"):
        read_signed(doubled, Letter, PINNED)


def test_a_document_over_one_mebibyte_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(DocumentInvalid, match="bytes, over"):
        read_signed(b" " * (MAX_DOCUMENT + 1), Letter, PINNED)


@pytest.mark.parametrize("letter", [Letter(text="x" * MAX_DOCUMENT), Letter(number=2**53)])
def test_what_no_reader_would_accept_is_not_written(letter: Letter) -> None:
    with pytest.raises(DocumentNotWritable):
        sign_document(letter, OURS)


def test_a_model_without_a_date_or_a_literal_format_cannot_be_signed() -> None:
    class Undated(BaseModel):
        format: Literal["pgkeep-undated-1"] = "pgkeep-undated-1"

    class Formless(BaseModel):
        format: str = "pgkeep-formless-1"
        created_at: AwareDatetime = NOON

    for model in (Undated, Formless):
        with pytest.raises(TypeError):
            sign_document(model(), OURS)


@SIGNERS
def test_a_signer_that_is_not_pinned_is_refused(signer: Ed25519 | Es256) -> None:
    raw = sign_document(Letter(), signer)
    with pytest.raises(SignerNotPinned) as refusal:
        read_signed(raw, Letter, pin(OTHER))
    assert signer.key_id in refusal.value.fact


def test_a_signature_of_another_key_under_a_pinned_name_is_refused() -> None:
    raw = sign_document(Letter(), OURS)
    impostor = {OURS.key_id: pin(OTHER)[OTHER.key_id]}
    with pytest.raises(SignatureInvalid):
        read_signed(raw, Letter, impostor)


def test_a_pinned_key_does_not_speak_in_another_algorithm() -> None:
    raw = sign_document(Letter(), OURS)
    with pytest.raises(SignatureInvalid, match="ES256"):
        read_signed(raw, Letter, {OURS.key_id: pin(VAULT)[VAULT.key_id]})


def test_a_document_without_signature_is_refused() -> None:
    with pytest.raises(DocumentInvalid):
        read_signed(rfc8785.dumps(Letter().model_dump(mode="json")), Letter, PINNED)


def test_after_rotation_old_documents_verify_with_the_old_key_and_new_ones_with_the_new() -> None:
    old = sign_document(Letter(created_at=NOON), OURS)
    new = sign_document(Letter(created_at=NOON + HOUR), OTHER)
    pinned = pin(OURS, revoked_after=NOON) | pin(OTHER)
    assert read_signed(old, Letter, pinned).created_at == NOON
    assert read_signed(new, Letter, pinned).created_at == NOON + HOUR


def test_a_document_dated_after_the_revocation_of_its_signer_is_refused() -> None:
    raw = sign_document(Letter(created_at=NOON + timedelta(microseconds=1)), OURS)
    with pytest.raises(SignerRevoked):
        read_signed(raw, Letter, pin(OURS, revoked_after=NOON))


@pytest.mark.parametrize("created", ['"2026-11-22T12:00:00"', '"soon"', "7", "null"])
def test_a_revoked_signer_is_not_believed_without_a_date(created: str) -> None:
    raw = signed_text(f'{{"created_at":{created},"format":"pgkeep-letter-1"}}')
    with pytest.raises(SignerRevoked):
        read_signed(raw, Letter, pin(OURS, revoked_after=NOON + 1000 * HOUR))


def test_a_later_format_is_refused_with_the_version_it_needs() -> None:
    raw = sign_document(AnyLetter(format="pgkeep-letter-3"), OURS)
    with pytest.raises(FormatTooNew, match="pgkeep-letter-3") as refusal:
        read_signed(raw, Letter, PINNED)
    assert "pgkeep-letter-3" in refusal.value.advice


def test_an_earlier_known_format_is_read() -> None:
    letter = Letter(format="pgkeep-letter-1")
    assert read_signed(sign_document(letter, OURS), Letter, PINNED) == letter


def test_a_document_of_another_kind_is_refused() -> None:
    raw = sign_document(AnyLetter(format="pgkeep-note-9"), OURS)
    with pytest.raises(DocumentInvalid, match="pgkeep-note-9"):
        read_signed(raw, Letter, PINNED)


def test_an_unknown_member_is_named() -> None:
    raw = sign_document(AnyLetter.model_validate({"colour": "red"}), OURS)
    with pytest.raises(DocumentInvalid, match="colour: extra_forbidden"):
        read_signed(raw, Letter, PINNED)


def test_the_digest_is_that_of_the_stored_bytes() -> None:
    assert document_digest(b"abc").startswith("ba7816bf8f01cfea414140de5dae2223")


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.derive_private_key(4711, ec.SECP384R1()),
    ],
    ids=["RSA", "P-384"],
)
def test_only_ed25519_and_p256_keys_are_pinned(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    with pytest.raises(PinnedKeyInvalid):
        PinnedKey.from_pem(pem(key))


def test_what_is_no_public_key_is_not_pinned() -> None:
    with pytest.raises(PinnedKeyInvalid):
        PinnedKey.from_pem(b"ssh-ed25519 AAAA")
