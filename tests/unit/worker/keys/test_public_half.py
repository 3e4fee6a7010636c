"""`pgkeep keys describe`: what it prints is what the settings take, and what the keys fit to."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.hashes import SHA256

from shared.repository.base64url import encode
from shared.repository.pinned_keys import PinnedKey
from shared.settings import Settings
from tests.unit.worker.keys.fake_key_vault import FakeKeyVault, StaticCredential, fake_key_vault
from worker.keys.key_vault import KeyVaultDenied, KeyVaultKeyInvalid, KeyVaultWrappingKey
from worker.keys.public_half import PublicHalf, public_half

REPOSITORY = '[repository]\ntype = "directory"\npath = "blobs"\n'


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[FakeKeyVault]:
    with fake_key_vault(tmp_path, bytes) as vault:
        yield vault


def described(vault: FakeKeyVault, key_id: str | None = None) -> PublicHalf:
    return public_half(key_id or vault.key_id, StaticCredential(), vault.options)


def member(number: int) -> str:
    return encode(number.to_bytes((number.bit_length() + 7) // 8))


def test_an_rsa_key_becomes_a_recipient_that_wraps_for_its_private_half(
    vault: FakeKeyVault,
) -> None:
    private = rsa.generate_private_key(65537, 3072)
    numbers = private.public_key().public_numbers()
    vault.readable = {"kty": "RSA", "n": member(numbers.n), "e": member(numbers.e)}
    half = described(vault, vault.key_id.rpartition("/")[0])
    assert half.key_id == vault.key_id
    settings = Settings.model_validate(tomllib.loads(REPOSITORY + half.as_settings()))
    [recipient], [unwrap] = settings.keys.recipients, settings.keys.unwrap
    assert recipient.type == unwrap.type == "key-vault"
    wrapping = KeyVaultWrappingKey.from_pem(recipient.pem or "", recipient.key_id)
    wrapped = wrapping.wrap(b"k" * 32)
    assert wrapped.kek == vault.key_id
    assert private.decrypt(wrapped.encrypted_key, OAEP(MGF1(SHA256()), SHA256(), None)) == b"k" * 32


def test_an_ec_key_becomes_the_signing_key_and_is_pinned(vault: FakeKeyVault) -> None:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    numbers = public.public_numbers()
    vault.readable = {"kty": "EC", "crv": "P-256", "x": member(numbers.x), "y": member(numbers.y)}
    half = described(vault)
    settings = Settings.model_validate(tomllib.loads(REPOSITORY + half.as_settings()))
    [pinned] = settings.keys.pinned
    assert pinned.key_id == half.key_id
    assert PinnedKey.from_pem((pinned.pem or "").encode()).public_key == public
    assert settings.keys.signing is not None


def test_what_cannot_serve_or_may_not_be_read_is_refused(vault: FakeKeyVault) -> None:
    with pytest.raises(KeyVaultDenied):
        described(vault)
    vault.readable = {"kty": "EC", "crv": "P-521", "x": member(1 << 500), "y": member(1 << 500)}
    with pytest.raises(KeyVaultKeyInvalid, match="kind EC"):
        described(vault)
    with pytest.raises(KeyVaultKeyInvalid, match="not the id"):
        described(vault, "https://vault.example/secrets/x")
