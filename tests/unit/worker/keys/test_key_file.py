"""Key files that cannot be used, and how each says so (fault K04)."""

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from worker.keys.generate import KeySet
from worker.keys.key_file import (
    KeyFileDenied,
    KeyFileExposed,
    KeyFileInvalid,
    KeyFileMissing,
    PassPhraseMissing,
    PassPhraseWrong,
)
from worker.keys.local_pem import PemUnwrappingKey, PemWrappingKey
from worker.keys.signing import PemSigner

PASS_PHRASE = SecretStr("canary-pass-phrase")


def private_file(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.fixture
def encrypted(keys: KeySet, tmp_path: Path) -> Path:
    key = serialization.load_pem_private_key(keys.wrapping.private.read_bytes(), None)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASS_PHRASE.get_secret_value().encode()),
    )
    return private_file(tmp_path / "encrypted.pem", pem)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for load in (PemUnwrappingKey.load, PemWrappingKey.load, PemSigner.load):
        with pytest.raises(KeyFileMissing, match=r"absent\.pem does not exist"):
            load(tmp_path / "absent.pem")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o640])
def test_a_private_key_that_others_can_read_is_refused(
    keys: KeySet, tmp_path: Path, mode: int
) -> None:
    path = private_file(tmp_path / "key.pem", keys.wrapping.private.read_bytes(), mode)
    if mode == 0o640 and os.geteuid() == 0:
        assert PemUnwrappingKey.load(path).kek  # libpq's exception for files of root
        return
    with pytest.raises(KeyFileExposed, match=f"mode {mode:04o}"):
        PemUnwrappingKey.load(path)


def test_a_public_key_may_be_read_by_all(keys: KeySet, tmp_path: Path) -> None:
    path = private_file(tmp_path / "key.pem", keys.wrapping.public.read_bytes(), 0o644)
    assert PemWrappingKey.load(path).kek.startswith("pem:")


def test_a_file_that_this_account_may_not_read_is_told_from_a_missing_one(tmp_path: Path) -> None:
    path = private_file(tmp_path / "key.pem", b"", 0o000)
    if os.geteuid() != 0:
        with pytest.raises(KeyFileDenied):
            PemSigner.load(path)
        return
    with pytest.raises(KeyFileDenied, match="directory"):
        PemSigner.load(tmp_path)


def test_an_encrypted_key_opens_with_its_pass_phrase(keys: KeySet, encrypted: Path) -> None:
    assert (
        PemUnwrappingKey.load(encrypted, PASS_PHRASE).kek
        == PemWrappingKey.load(keys.wrapping.public).kek
    )


def test_an_encrypted_key_without_pass_phrase_is_refused(encrypted: Path) -> None:
    with pytest.raises(PassPhraseMissing):
        PemUnwrappingKey.load(encrypted)


def test_a_wrong_pass_phrase_is_refused_and_not_shown(encrypted: Path) -> None:
    with pytest.raises(PassPhraseWrong) as refusal:
        PemUnwrappingKey.load(encrypted, SecretStr("canary-wrong"))
    assert "canary" not in f"{refusal.value!r} {refusal.value} {refusal.value.advice}"


def test_a_pass_phrase_for_an_open_key_does_no_harm(keys: KeySet) -> None:
    assert PemUnwrappingKey.load(keys.wrapping.private, PASS_PHRASE).kek


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = private_file(tmp_path / "key.pem", content)
    for load in (PemUnwrappingKey.load, PemWrappingKey.load, PemSigner.load):
        with pytest.raises(KeyFileInvalid, match=r"key\.pem holds no"):
            load(path)


def test_a_key_of_another_kind_is_refused(keys: KeySet) -> None:
    with pytest.raises(KeyFileInvalid, match="no rsa key"):
        PemUnwrappingKey.load(keys.signing.private)
    with pytest.raises(KeyFileInvalid, match="no rsa key"):
        PemWrappingKey.load(keys.signing.public)
    with pytest.raises(KeyFileInvalid, match="no ed25519 key"):
        PemSigner.load(keys.wrapping.private)


def test_a_private_key_is_not_taken_for_a_public_one(keys: KeySet) -> None:
    with pytest.raises(KeyFileInvalid, match="no public key"):
        PemWrappingKey.load(keys.wrapping.private)


def test_a_short_rsa_key_is_refused(tmp_path: Path) -> None:
    short = rsa.generate_private_key(65537, 2048)
    pem = short.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    with pytest.raises(KeyFileInvalid, match="2048 bits, below 3072"):
        PemUnwrappingKey.load(private_file(tmp_path / "key.pem", pem))


def test_loaded_keys_print_no_secret(keys: KeySet) -> None:
    shown = (
        f"{PemUnwrappingKey.load(keys.wrapping.private)!r} {PemSigner.load(keys.signing.private)!r}"
    )
    assert "RSAPrivateKey" not in shown
    assert "Ed25519PrivateKey" not in shown
