"""The public half of a Key Vault key, as the settings want it: pinned once, by who deploys."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from worker.keys.key_vault import KeyVaultKeyInvalid, key_vault_errors, parsed_key_id

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.keyvault.keys import JsonWebKey


@dataclass(frozen=True, slots=True)
class PublicHalf:
    """`key_id` carries the version; `use` is what pgkeep can do with a key of this kind."""

    key_id: str
    use: Literal["wrap", "sign"]
    pem: str

    def as_settings(self) -> str:
        """What to put into `[keys]` of pgkeep.toml."""
        key = f'type = "key-vault"\nkey_id = "{self.key_id}"\n'
        pem = f'pem = """\n{self.pem}"""\n'
        if self.use == "wrap":
            return f"[[keys.recipients]]\n{key}{pem}\n[[keys.unwrap]]\n{key}"
        return f'[keys.signing]\n{key}\n[[keys.pinned]]\nkey_id = "{self.key_id}"\n{pem}'


def public_half(
    key_id: str, credential: "TokenCredential", options: Mapping[str, Any] | None = None
) -> PublicHalf:
    """Asks Key Vault; without a version in `key_id`, for the newest. Needs the right `get`.

    Raises KeyVaultKeyInvalid, KeyVaultDenied, KeyVaultKeyMissing, KeyVaultUnavailable.
    """
    from azure.keyvault.keys import KeyClient

    place = parsed_key_id(key_id)
    vault, _, name = place["key"].partition("/keys/")
    with (
        key_vault_errors(key_id),
        KeyClient(vault, credential, **(options or {})) as client,
    ):
        found = client.get_key(name, place["version"])
    return _half(str(found.id), found.key)


def _half(key_id: str, jwk: "JsonWebKey") -> PublicHalf:
    # The service's words, or the SDK's enumeration of them.
    kind, curve = (getattr(word, "value", word) for word in (jwk.kty, jwk.crv))  # type: ignore[attr-defined]
    if kind in {"RSA", "RSA-HSM"}:
        rsa = RSAPublicNumbers(_number(jwk, "e"), _number(jwk, "n")).public_key()
        return PublicHalf(key_id, "wrap", _pem(rsa))
    if kind in {"EC", "EC-HSM"} and curve == "P-256":
        numbers = EllipticCurvePublicNumbers(_number(jwk, "x"), _number(jwk, "y"), SECP256R1())
        return PublicHalf(key_id, "sign", _pem(numbers.public_key()))
    raise KeyVaultKeyInvalid(f"{key_id} is a key of kind {kind}")


def _number(jwk: "JsonWebKey", member: str) -> int:
    return int.from_bytes(getattr(jwk, member))


def _pem(key: Any) -> str:  # noqa: ANN401 - an RSA or an EC public key
    pem: bytes = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem.decode()
