"""`[access]`: who may call the HTTP API. Without this section nobody may, but for its health."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from shared.settings.sections import Section

_GUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


class EasyAuth(Section):
    """`[access]` in Azure: App Service authentication validates the tokens of Entra ID, and names
    the caller in a header.
    """

    type: Literal["easy-auth"]
    tenant_id: str = Field(pattern=_GUID, description="the only Entra ID tenant whose users count")
    audiences: tuple[str, ...] = Field(
        min_length=1, description="what a token must be made for: the app registration's client id"
    )


class LocalTokens(Section):
    """`[access]` of a stack for development: tokens that `python -m local token` signs."""

    type: Literal["local"]
    public_key: Path = Field(
        description="Ed25519 public key, PEM, that the tokens are checked with"
    )
    issuer: str = Field("pgkeep-local", description="who a token must say that it is from")
    audience: str = Field("pgkeep", description="what a token must be made for")


Access = Annotated[EasyAuth | LocalTokens, Field(discriminator="type")]
