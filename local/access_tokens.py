"""Tokens for callers of a stack for development: what Entra ID is for in Azure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from shared.settings import LocalTokens


def make_access_key(private: Path) -> Path:
    """Write a new key, 0600, and its public half beside it; the public half's path."""
    key = Ed25519PrivateKey.generate()
    private.touch(0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = private.with_suffix(".public.pem")
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return public


def sign_token(
    private: Path, *, name: str, roles: Sequence[str], now: datetime, lifetime: timedelta
) -> str:
    """A bearer token for somebody of this name; one name is one person."""
    claims = {
        "iss": LocalTokens.model_fields["issuer"].default,
        "aud": LocalTokens.model_fields["audience"].default,
        "sub": name,
        "name": name,
        "roles": list(roles),
        "iat": now,
        "exp": now + lifetime,
    }
    return jwt.encode(claims, private.read_text("ascii"), algorithm="EdDSA")
