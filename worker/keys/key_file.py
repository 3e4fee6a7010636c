"""Key files: PEM, private halves readable by their owner alone."""

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import SecretStr

from shared.errors import Denied, InvalidInput, NotFound, Refused

# A PEM key of any size we accept is below 16 KiB.
_MAX_KEY_FILE = 1 << 16


class KeyFileMissing(NotFound):
    """A key file that is not there."""

    code = "key-file-missing"
    hint = "Correct the path in the settings; `pgkeep keys generate` makes a development key set."


class KeyFileDenied(Denied):
    """A key file that this process may not read."""

    code = "key-file-denied"
    hint = "Give the file to the account that runs pgkeep."


class KeyFileExposed(Refused):
    """A private key that others can read."""

    code = "key-file-exposed"
    hint = "Set its mode to 0600; if others may have read it, replace the key."


class KeyFileInvalid(InvalidInput):
    """A file that holds no key of the kind that is needed here."""

    code = "key-file-invalid"
    hint = "Wrapping takes RSA keys of 3072 bits or more, signing takes Ed25519, both in PEM."


class PassPhraseMissing(Denied):
    """An encrypted private key, and no pass phrase in the settings."""

    code = "pass-phrase-missing"
    hint = "Set `passphrase` beside the path of the key."


class PassPhraseWrong(Denied):
    """A pass phrase that does not open the private key."""

    code = "pass-phrase-wrong"
    hint = "Correct `passphrase` beside the path of the key."


def load_public_key(path: Path) -> PublicKeyTypes:
    """Raises KeyFileMissing, KeyFileDenied, KeyFileInvalid."""
    return parse_public_key(_read(path, private=False), str(path))


def parse_public_key(pem: bytes, source: str) -> PublicKeyTypes:
    """`source` is for the message of KeyFileInvalid, which this raises."""
    try:
        return load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileInvalid(f"{source} holds no public key in pem") from None


def load_private_key(path: Path, pass_phrase: SecretStr | None = None) -> PrivateKeyTypes:
    """Raises as `load_public_key`, and KeyFileExposed, PassPhraseMissing, PassPhraseWrong.

    The primes of an RSA key are not tried again, which takes 0.1 s: it is the operator's own, and
    one that is damaged opens no data key, which is proven for each by its commitment.
    """
    pem = _read(path, private=True)
    # The label of PKCS #8 (RFC 7468 §11) or the header of the older format (RFC 1421).
    encrypted = b"ENCRYPTED" in pem
    if encrypted and pass_phrase is None:
        raise PassPhraseMissing(f"{path} is encrypted, and no pass phrase is set")
    secret = pass_phrase.get_secret_value().encode() if pass_phrase and encrypted else None
    try:
        return load_pem_private_key(pem, secret, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if encrypted:
            raise PassPhraseWrong(f"the pass phrase does not open {path}") from None
        raise KeyFileInvalid(f"{path} holds no private key in pem") from None


def _read(path: Path, *, private: bool) -> bytes:
    try:
        with path.open("rb") as file:
            if private:
                _refuse_exposed(os.fstat(file.fileno()), path)
            return file.read(_MAX_KEY_FILE)
    except FileNotFoundError:
        raise KeyFileMissing(f"{path} does not exist") from None
    except OSError as error:
        raise KeyFileDenied(f"cannot read {path}: {error.strerror}") from None


def _refuse_exposed(status: os.stat_result, path: Path) -> None:
    # libpq's rule for sslkey: 0600 or less, or 0640 or less for a file of root, so that mounted
    # secrets work (https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-CLIENTCERT).
    allowed = 0o640 if status.st_uid == 0 else 0o600
    mode = stat.S_IMODE(status.st_mode)
    if mode & ~(allowed | stat.S_IXUSR):
        raise KeyFileExposed(f"{path} has mode {mode:04o}, more than {allowed:04o}")
