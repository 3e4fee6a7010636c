"""Wrapping keys in Azure Key Vault: wrapped to here, unwrapped there.

Wrapping computes with the public half alone: no call, no right, and backups go on while Key Vault
is away. Unwrapping is a call that needs `unwrapKey` on the version that the key record names.
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ValidationError

from shared.errors import Denied, InvalidInput, NotFound, PgkeepError, Unavailable
from shared.repository.key_record import Recipient
from worker.keys.key_file import (
    KeyFileDenied,
    KeyFileInvalid,
    KeyFileMissing,
    parse_public_key,
)
from worker.keys.key_ring import UnwrapFailed
from worker.keys.local_pem import check_length, require_rsa

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.exceptions import HttpResponseError
    from azure.keyvault.keys.crypto import CryptographyClient

# https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates
_KEY_ID = re.compile(
    r"(?P<key>https://[A-Za-z0-9.:-]+/keys/[A-Za-z0-9-]{1,127})(?:/(?P<version>[0-9a-f]{32}))?"
)
# azure-core waits 0, 1.6, 3.2 … seconds, or what Retry-After says: about 50 s for 429 and 5xx.
_RETRIES = 6
# By itself it does not repeat a POST answered 429 without Retry-After; unwrapping and signing
# change nothing, so they may be repeated.
RETRIED_METHODS = ("GET", "POST")
_TIMEOUT_S = 20

# Builds the client for one versioned key id.
ClientFor = Callable[[str], "CryptographyClient"]


class KeyVaultKeyInvalid(InvalidInput):
    """A key id or a key that cannot serve here."""

    code = "key-vault-key-invalid"
    hint = "Use an RSA key of 3072 bits or more to wrap, an EC P-256 key to sign, with its version."


class KeyVaultDenied(Denied):
    """Key Vault refused the identity."""

    code = "key-vault-denied"
    hint = "Grant unwrapKey (sign, for signing) on the key, and look at the vault's firewall."


class KeyVaultKeyDisabled(Denied):
    """A key that is disabled in Key Vault."""

    code = "key-vault-key-disabled"
    hint = "Enable the key version in Key Vault, or use another recipient."


class KeyVaultKeyMissing(NotFound):
    """A key version that Key Vault does not have, or no longer."""

    code = "key-vault-key-missing"
    hint = "Recover the key if it is soft-deleted; if it was purged, use another recipient."


class KeyVaultUnavailable(Unavailable):
    """Key Vault does not answer, or says it is busy, beyond the retry budget."""

    code = "key-vault-unavailable"
    hint = "Try again; or use another recipient, such as the escrow key."


class PublicJwk(BaseModel):
    """The public half as `az keyvault key show --query key` prints it; other members are ignored.

    `n` and `e` are big-endian, in base64url or base64.
    """

    kid: str | None = None
    kty: Literal["RSA", "RSA-HSM"]
    n: str
    e: str


@dataclass(frozen=True, slots=True)
class KeyVaultWrappingKey:
    """Wraps to the public half; `kek` is the full key id with version."""

    kek: str
    _client: "CryptographyClient" = field(repr=False)

    @classmethod
    def load(cls, path: Path, key_id: str) -> Self:
        """From a JWK file. Raises KeyFileMissing, KeyFileDenied, KeyFileInvalid,
        KeyVaultKeyInvalid."""
        try:
            jwk = PublicJwk.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise KeyFileMissing(f"{path} does not exist") from None
        except OSError as error:
            raise KeyFileDenied(f"cannot read {path}: {error.strerror}") from None
        except ValidationError:
            raise KeyFileInvalid(f"{path} holds no public rsa key as jwk") from None
        return cls.from_jwk(jwk, key_id)

    @classmethod
    def from_jwk(cls, jwk: PublicJwk, key_id: str) -> Self:
        """Raises KeyVaultKeyInvalid, KeyFileInvalid."""
        if jwk.kid not in (None, key_id):
            raise KeyVaultKeyInvalid(f"the jwk is of {jwk.kid}, not of {key_id}")
        n, e = _integer_bytes(jwk.n), _integer_bytes(jwk.e)
        check_length(int.from_bytes(n).bit_length(), f"the jwk of {key_id}")
        return cls._of(key_id, n, e)

    @classmethod
    def from_pem(cls, pem: str, key_id: str) -> Self:
        """Raises KeyVaultKeyInvalid, KeyFileInvalid."""
        source = f"the pem of {key_id}"
        numbers = require_rsa(parse_public_key(pem.encode(), source), source).public_numbers()
        return cls._of(key_id, _big_endian(numbers.n), _big_endian(numbers.e))

    @classmethod
    def _of(cls, key_id: str, n: bytes, e: bytes) -> Self:
        from azure.keyvault.keys.crypto import CryptographyClient

        material = {"kid": require_version(key_id), "kty": "RSA", "key_ops": ["wrapKey"]}
        return cls(key_id, CryptographyClient.from_jwk({**material, "n": n, "e": e}))

    def wrap(self, data_key: bytes) -> Recipient:
        from azure.keyvault.keys.crypto import KeyWrapAlgorithm

        wrapped = self._client.wrap_key(KeyWrapAlgorithm.rsa_oaep_256, data_key)
        return Recipient(kek=self.kek, encrypted_key=wrapped.encrypted_key)


class KeyVaultUnwrappingKey:
    """Unwraps with any version of one key. `key_id` may carry a version, which does not matter.

    The vault is pinned by `key_id`: a key record cannot send the identity's token elsewhere.
    """

    def __init__(self, key_id: str, client_for: ClientFor) -> None:
        self._key = parsed_key_id(key_id)["key"]
        self._client_for = client_for

    def fits(self, kek: str) -> bool:
        match = _KEY_ID.fullmatch(kek)
        return match is not None and match["version"] is not None and match["key"] == self._key

    def unwrap(self, recipient: Recipient) -> bytes:
        from azure.keyvault.keys.crypto import KeyWrapAlgorithm

        try:
            with key_vault_errors(recipient.kek), self._client_for(recipient.kek) as client:
                result = client.unwrap_key(
                    KeyWrapAlgorithm.rsa_oaep_256,
                    recipient.encrypted_key,
                    retry_on_methods=RETRIED_METHODS,
                )
        except (ValueError, KeyVaultKeyInvalid) as error:
            # ValueError: a client with the private half at hand; HTTP 400: the service.
            fact = f"{recipient.kek} does not open what was wrapped to it: {error}"
            raise UnwrapFailed(fact) from None
        return result.key


def service_client(
    key_id: str, credential: "TokenCredential", options: Mapping[str, Any] | None = None
) -> "CryptographyClient":
    """A client that calls Key Vault; `options` are azure-core's, such as `connection_verify`."""
    from azure.keyvault.keys.crypto import CryptographyClient

    limits = {
        "retry_total": _RETRIES,
        "retry_status": _RETRIES,
        "connection_timeout": _TIMEOUT_S,
        "read_timeout": _TIMEOUT_S,
    }
    return CryptographyClient(key_id, credential, **{**limits, **(options or {})})


def require_version(key_id: str) -> str:
    """Returns `key_id`; raises KeyVaultKeyInvalid when it is no full key id with a version."""
    if parsed_key_id(key_id)["version"] is None:
        raise KeyVaultKeyInvalid(f"key id {key_id} has no version")
    return key_id


@contextmanager
def key_vault_errors(key_id: str) -> Iterator[None]:
    """Maps what the SDK raises, once."""
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    try:
        yield
    except ClientAuthenticationError as error:
        raise KeyVaultDenied(f"no token that key vault accepts for {key_id}") from error
    except HttpResponseError as error:
        raise _from_response(error, key_id) from error
    except AzureError as error:
        raise KeyVaultUnavailable(f"no answer about {key_id}: {type(error).__name__}") from error


def _from_response(error: "HttpResponseError", key_id: str) -> PgkeepError:
    code = _inner_code(error)
    match error.status_code:
        case 403 if code == "KeyDisabled":
            return KeyVaultKeyDisabled(f"{key_id} is disabled")
        case 401 | 403:
            return KeyVaultDenied(f"key vault refuses {key_id} to this identity: {code}")
        case 404:
            return KeyVaultKeyMissing(f"key vault has no {key_id}")
        case 400:
            return KeyVaultKeyInvalid(f"key vault cannot do this with {key_id}: {code}")
        case status:
            return KeyVaultUnavailable(f"key vault answers {status} about {key_id}")


def _inner_code(error: "HttpResponseError") -> str:
    """Key Vault's most exact code, such as ForbiddenByRbac, ForbiddenByFirewall, KeyDisabled."""
    outer = getattr(error.model, "error", None)
    inner = getattr(outer, "inner_error", None)
    return str(getattr(inner, "code", None) or getattr(outer, "code", None) or "no code")


def parsed_key_id(key_id: str) -> re.Match[str]:
    match = _KEY_ID.fullmatch(key_id)
    if match is None:
        raise KeyVaultKeyInvalid(f"{key_id!r} is not the id of a key vault key")
    return match


def _big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)


def _integer_bytes(text: str) -> bytes:
    plain = text.replace("+", "-").replace("/", "_").rstrip("=")
    try:
        return base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4)).lstrip(b"\0")
    except ValueError:
        raise KeyVaultKeyInvalid("n or e of the jwk is not base64url") from None
