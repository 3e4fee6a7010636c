"""Key records: what they commit to, who must be able to open them, which of them counts."""

import hashlib
import hmac
import json
import re
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.errors import PgkeepError
from shared.repository.key_record import (
    KeyPurpose,
    KeyRecord,
    Recipient,
    TooFewRecipients,
    commitment,
    effective_record,
    new_kid,
    sign_key_record,
)
from shared.repository.pinned_keys import Algorithm, PinnedKey
from shared.repository.signatures import read_signed

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PINNED = {"ours": PinnedKey(KEY.public_key())}
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KID = "k" + "a2" * 13
VAULT = "https://v.vault.azure.net/keys/wrap/"


class OurSigner:
    key_id = "ours"
    algorithm: Algorithm = "Ed25519"

    def sign(self, data: bytes) -> bytes:
        return KEY.sign(data)


def recipient(kek: str) -> Recipient:
    return Recipient(kek=kek, encrypted_key=bytes(384))


def record(*keks: str, rewrap: int = 0, key: bytes = bytes(32)) -> KeyRecord:
    return KeyRecord(
        kid=KID,
        cluster="orders",
        cluster_uuid="5f0e8d0a-4a7e-4a52-8a3b-0c8f2b6d9e11",
        purpose=KeyPurpose.BACKUP,
        commitment=commitment(key, KID),
        recipients=tuple(recipient(kek) for kek in keks or ("pem:a", "pem:b")),
        created_at=NOW,
        rewrap=rewrap,
    )


def test_the_commitment_is_hkdf_sha256_as_the_format_says() -> None:
    data_key = bytes(range(32))
    # RFC 5869: extract, then the first block of expand.
    pseudorandom = hmac.digest(b"pgkeep1-commit", data_key, hashlib.sha256)
    expected = hmac.digest(pseudorandom, KID.encode() + b"\x01", hashlib.sha256)
    assert commitment(data_key, KID) == expected


def test_the_commitment_tells_keys_and_kids_apart() -> None:
    assert len({commitment(key, kid) for key in (b"a" * 32, b"b" * 32) for kid in "xy"}) == 4


def test_a_kid_is_a_k_and_26_base32_letters() -> None:
    kids = {new_kid() for _ in range(20)}
    assert len(kids) == 20
    assert all(re.fullmatch(r"k[a-z2-7]{26}", kid) for kid in kids)


def test_a_record_is_read_back_as_it_was_signed() -> None:
    raw = sign_key_record(record(), OurSigner(), production=True)
    assert read_signed(raw, KeyRecord, PINNED) == record()
    assert json.loads(raw)["recipients"][0]["encrypted_key"] == "A" * 512


@given(st.data())
def test_a_changed_record_is_never_read(data: st.DataObject) -> None:
    raw = bytearray(sign_key_record(record(), OurSigner(), production=True))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PgkeepError):
        read_signed(bytes(raw), KeyRecord, PINNED)


@pytest.mark.parametrize("keks", [("pem:a",), (VAULT + "0" * 32, VAULT + "1" * 32)])
def test_production_refuses_a_record_that_one_lost_key_makes_useless(keks: tuple[str, ...]) -> None:
    with pytest.raises(TooFewRecipients, match=re.escape(keks[0])):
        sign_key_record(record(*keks), OurSigner(), production=True)


def test_production_takes_key_vault_and_an_escrow() -> None:
    escrowed = record(VAULT + "0" * 32, "pem:a")
    assert escrowed.escrowed
    assert sign_key_record(escrowed, OurSigner(), production=True)


def test_development_takes_a_single_recipient_and_can_warn() -> None:
    single = record("pem:a")
    assert sign_key_record(single, OurSigner(), production=False)
    assert not single.escrowed


def test_two_recipients_of_one_key_are_refused() -> None:
    with pytest.raises(ValidationError, match="two recipients have one key"):
        record("pem:a", "pem:a")


@pytest.mark.parametrize(
    "change",
    [
        {"kid": "k1"},
        {"algorithm": "AES128_GCM_HKDF_1MB"},
        {"commitment": "AAAA"},
        {"recipients": []},
        {"purpose": "fun"},
        {"rewrap": -1},
        {"created_at": "2026-11-22T12:00:00"},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_record_off_its_schema_is_refused(change: dict[str, object]) -> None:
    good = json.loads(record().model_dump_json())
    assert KeyRecord.model_validate_json(json.dumps(good)) == record()
    with pytest.raises(ValidationError):
        KeyRecord.model_validate_json(json.dumps(good | change))


@given(st.permutations([0, 1, 2, 11]))
def test_the_highest_rewrap_counts_in_any_order(numbers: list[int]) -> None:
    assert effective_record([record(rewrap=number) for number in numbers]).rewrap == 11


def test_a_rewrap_that_commits_to_another_key_never_counts() -> None:
    other = record(rewrap=2, key=b"x" * 32)
    assert effective_record([other, record(), record(rewrap=1)]).rewrap == 1
