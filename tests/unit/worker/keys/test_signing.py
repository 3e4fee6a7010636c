"""Signers: what they sign is believed when, and only when, their key is pinned."""

from datetime import UTC, datetime

import pytest
from azure.keyvault.keys.crypto import CryptographyClient
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.repository.documents import ClusterDocument
from shared.repository.pinned_keys import PinnedKey, key_fingerprint
from shared.repository.signatures import (
    PinnedKeys,
    Signer,
    SignerNotPinned,
    read_signed,
    sign_document,
)
from worker.keys.generate import KeySet
from worker.keys.key_vault import KeyVaultKeyInvalid
from worker.keys.signing import KeyVaultSigner, PemSigner

KEY_ID = "https://v.vault.azure.net/keys/sign/" + "0" * 32
DOCUMENT = ClusterDocument(
    cluster="orders",
    cluster_uuid="5f0e8d0a-4a7e-4a52-8a3b-0c8f2b6d9e11",
    system_identifier="7421398765432109876",
    created_at=datetime(2026, 11, 22, 12, tzinfo=UTC),
)


def pem_signer(keys: KeySet) -> tuple[Signer, PinnedKeys]:
    pinned = PinnedKey.from_pem(keys.signing.public.read_bytes())
    return PemSigner.load(keys.signing.private), {key_fingerprint(pinned.public_key): pinned}


def vault_signer(keys: KeySet) -> tuple[Signer, PinnedKeys]:
    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.private_numbers()
    material = {
        "kid": KEY_ID,
        "kty": "EC",
        "crv": "P-256",
        "key_ops": ["sign"],
        "x": numbers.public_numbers.x.to_bytes(32),
        "y": numbers.public_numbers.y.to_bytes(32),
        "d": numbers.private_value.to_bytes(32),
    }
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signer = KeyVaultSigner(KEY_ID, lambda _: CryptographyClient.from_jwk(material))
    return signer, {KEY_ID: PinnedKey.from_pem(pem)}


@pytest.mark.parametrize("make", [pem_signer, vault_signer])
def test_a_signed_document_is_believed_by_who_pins_the_key(keys: KeySet, make) -> None:  # type: ignore[no-untyped-def]
    signer, pinned = make(keys)
    raw = sign_document(DOCUMENT, signer)
    assert read_signed(raw, ClusterDocument, pinned) == DOCUMENT
    with pytest.raises(SignerNotPinned):
        read_signed(raw, ClusterDocument, {})


def test_a_vault_signer_shows_the_version_it_signs_with(keys: KeySet) -> None:
    signer, _ = vault_signer(keys)
    assert (signer.key_id, signer.algorithm) == (KEY_ID, "ES256")
    with pytest.raises(KeyVaultKeyInvalid, match="no version"):
        KeyVaultSigner(KEY_ID.rpartition("/")[0], lambda _: pytest.fail("no call"))
