"""Key Vault keys: wrapping without the service, and every answer of the service told apart."""

import base64
import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from azure.core.exceptions import ClientAuthenticationError
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shared.errors import PgkeepError
from shared.repository.base64url import encode
from shared.repository.key_record import Recipient
from tests.unit.worker.keys.fake_key_vault import (
    VERSION,
    Answer,
    FakeKeyVault,
    StaticCredential,
    fake_key_vault,
    refusal,
)
from worker.keys.generate import KeySet
from worker.keys.key_file import KeyFileInvalid, KeyFileMissing
from worker.keys.key_ring import UnwrapFailed
from worker.keys.key_vault import (
    ClientFor,
    KeyVaultDenied,
    KeyVaultKeyDisabled,
    KeyVaultKeyInvalid,
    KeyVaultKeyMissing,
    KeyVaultUnavailable,
    KeyVaultUnwrappingKey,
    KeyVaultWrappingKey,
    service_client,
)
from worker.keys.signing import KeyVaultSigner

SECRET = b"canary-canary-canary-canary-1234"
KEY = "https://v.vault.azure.net/keys/wrap"
KEY_ID = f"{KEY}/{VERSION}"
OAEP_256 = OAEP(MGF1(SHA256()), SHA256(), label=None)


@pytest.fixture
def private(keys: KeySet) -> rsa.RSAPrivateKey:
    key = load_pem_private_key(keys.wrapping.private.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


@pytest.fixture
def vault(tmp_path: Path, private: rsa.RSAPrivateKey) -> Iterator[FakeKeyVault]:
    with fake_key_vault(tmp_path, lambda data: private.decrypt(data, OAEP_256)) as vault:
        yield vault


@pytest.fixture
def client_for(vault: FakeKeyVault) -> ClientFor:
    return partial(service_client, credential=StaticCredential(), options=vault.options)


def jwk(key: rsa.RSAPrivateKey, encoding: Callable[[bytes], str] = encode) -> dict[str, object]:
    numbers = key.public_key().public_numbers()
    n = numbers.n.to_bytes(key.key_size // 8)
    return {"kty": "RSA", "n": encoding(n), "e": "AQAB", "key_ops": ["verify"], "hsm": None}


def jwk_file(folder: Path, content: object) -> Path:
    path = folder / "public.jwk"
    path.write_text(json.dumps(content))
    return path


def wrapped(private: rsa.RSAPrivateKey, kek: str) -> Recipient:
    return Recipient(kek=kek, encrypted_key=private.public_key().encrypt(SECRET, OAEP_256))


def standard_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("encoding", [encode, standard_base64])
def test_wrapping_needs_the_public_half_alone(
    tmp_path: Path, private: rsa.RSAPrivateKey, encoding: Callable[[bytes], str]
) -> None:
    path = jwk_file(tmp_path, jwk(private, encoding) | {"kid": KEY_ID})
    recipient = KeyVaultWrappingKey.load(path, KEY_ID).wrap(SECRET)
    assert (recipient.kek, recipient.algorithm) == (KEY_ID, "RSA-OAEP-256")
    assert private.decrypt(recipient.encrypted_key, OAEP_256) == SECRET


@pytest.mark.parametrize(
    "key_id", [KEY, f"{KEY}/latest", "http://v/keys/wrap/" + VERSION, f"{KEY_ID}/", "pem:0", ""]
)
def test_a_wrapping_key_needs_its_full_id(
    tmp_path: Path, private: rsa.RSAPrivateKey, key_id: str
) -> None:
    with pytest.raises(KeyVaultKeyInvalid):
        KeyVaultWrappingKey.load(jwk_file(tmp_path, jwk(private)), key_id)


def test_the_public_half_of_another_key_is_refused(
    tmp_path: Path, private: rsa.RSAPrivateKey
) -> None:
    path = jwk_file(tmp_path, jwk(private) | {"kid": f"{KEY}/{'f' * 32}"})
    with pytest.raises(KeyVaultKeyInvalid, match="f" * 32):
        KeyVaultWrappingKey.load(path, KEY_ID)


def test_a_jwk_that_cannot_wrap_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileMissing):
        KeyVaultWrappingKey.load(tmp_path / "absent", KEY_ID)
    contents: list[object] = [{}, {"kty": "EC", "x": "AA", "y": "AA"}, [], "text"]
    for content in contents:
        with pytest.raises(KeyFileInvalid, match="no public rsa key"):
            KeyVaultWrappingKey.load(jwk_file(tmp_path, content), KEY_ID)
    short = jwk(rsa.generate_private_key(65537, 2048))
    with pytest.raises(KeyFileInvalid, match="2048 bits"):
        KeyVaultWrappingKey.load(jwk_file(tmp_path, short), KEY_ID)


def test_a_key_fits_all_its_versions_and_no_other_vault() -> None:
    for configured in (KEY, KEY_ID):
        key = KeyVaultUnwrappingKey(configured, lambda _: pytest.fail("no call"))
        assert key.fits(KEY_ID)
        assert key.fits(f"{KEY}/{'f' * 32}")
        for other in (
            KEY,
            f"{KEY}2/{VERSION}",
            f"https://v.vault.azure.net.evil.example/keys/wrap/{VERSION}",
            f"{KEY}/../other/{VERSION}",
            f"{KEY_ID}\n",
            "pem:0",
        ):
            assert not key.fits(other)


def test_the_service_unwraps_the_version_that_the_record_names(
    vault: FakeKeyVault,
    client_for: ClientFor,
    private: rsa.RSAPrivateKey,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    key = KeyVaultUnwrappingKey(vault.key_id, client_for)
    assert key.unwrap(wrapped(private, vault.key_id)) == SECRET
    assert vault.operations == ["unwrapkey"]
    assert "canary" not in caplog.text
    assert encode(SECRET) not in caplog.text


def test_a_busy_service_is_asked_again(
    vault: FakeKeyVault, client_for: ClientFor, private: rsa.RSAPrivateKey
) -> None:
    vault.script = [refusal(429, "Throttled", "VaultRequestTypeLimitReached")] * 5
    key = KeyVaultUnwrappingKey(vault.key_id, client_for)
    assert key.unwrap(wrapped(private, vault.key_id)) == SECRET
    assert len(vault.operations) == 6


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (refusal(403, "Forbidden", "ForbiddenByRbac"), KeyVaultDenied),
        (refusal(403, "Forbidden", "ForbiddenByFirewall"), KeyVaultDenied),
        (refusal(403, "Forbidden", "KeyDisabled"), KeyVaultKeyDisabled),
        (refusal(404, "KeyNotFound", "none"), KeyVaultKeyMissing),
        (refusal(400, "BadParameter", "none"), UnwrapFailed),
        (refusal(401, "Unauthorized", "none"), KeyVaultDenied),
        (refusal(409, "Conflict", "none"), KeyVaultUnavailable),
        ((403, {}), KeyVaultDenied),
        ((400, {"error": "text"}), UnwrapFailed),
    ],
    ids=str,
)
def test_every_refusal_of_the_service_has_its_own_error(
    vault: FakeKeyVault,
    client_for: ClientFor,
    private: rsa.RSAPrivateKey,
    answer: Answer,
    expected: type[PgkeepError],
) -> None:
    vault.script = [answer] * 2
    with pytest.raises(expected) as failure:
        KeyVaultUnwrappingKey(vault.key_id, client_for).unwrap(wrapped(private, vault.key_id))
    assert type(failure.value) is expected
    assert vault.key_id in failure.value.fact
    assert "canary" not in str(failure.value)


def test_a_service_that_stays_busy_may_be_tried_later(
    vault: FakeKeyVault, private: rsa.RSAPrivateKey
) -> None:
    vault.script = [refusal(503, "Unavailable", "none")] * 9
    patient = partial(
        service_client, credential=StaticCredential(), options=vault.options | {"retry_total": 1}
    )
    with pytest.raises(KeyVaultUnavailable, match="503") as failure:
        KeyVaultUnwrappingKey(vault.key_id, patient).unwrap(wrapped(private, vault.key_id))
    assert failure.value.retryable


def test_a_service_that_does_not_answer_may_be_tried_later(private: rsa.RSAPrivateKey) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        key_id = f"https://127.0.0.1:{closed.getsockname()[1]}/keys/wrap/{VERSION}"
        once = partial(service_client, credential=StaticCredential(), options={"retry_total": 0})
        with pytest.raises(KeyVaultUnavailable, match="no answer"):
            KeyVaultUnwrappingKey(key_id, once).unwrap(wrapped(private, key_id))


def test_an_identity_without_a_token_is_denied(
    vault: FakeKeyVault, private: rsa.RSAPrivateKey
) -> None:
    class NoIdentity(StaticCredential):
        def get_token(self, *scopes: str, **options: object):  # type: ignore[no-untyped-def]
            raise ClientAuthenticationError("no managed identity here")

    nobody = partial(service_client, credential=NoIdentity(), options=vault.options)
    with pytest.raises(KeyVaultDenied, match="no token"):
        KeyVaultUnwrappingKey(vault.key_id, nobody).unwrap(wrapped(private, vault.key_id))


def test_the_service_signs_a_digest_only(vault: FakeKeyVault, client_for: ClientFor) -> None:
    vault.compute = lambda digest: digest * 2
    signer = KeyVaultSigner(vault.key_id, client_for)
    assert signer.sign(b"document") == hashlib.sha256(b"document").digest() * 2
    assert vault.operations == ["sign"]
