"""`[account]`: where the guard reads what the storage account does to blobs by itself."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from shared.settings.sections import Credential, Section


class ArmAccount(Section):
    """`[account]` in Azure: lifecycle rules and immutability policies, read from Resource Manager.

    The identity needs to read them; it needs no right to change any.
    """

    type: Literal["arm"]
    subscription_id: str = Field(
        pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
        description="subscription of the storage account",
    )
    resource_group: str = Field(
        pattern=r"^[-\w.()]{1,90}$", description="resource group of the storage account"
    )
    name: str = Field(pattern=r"^[a-z0-9]{3,24}$", description="name of the storage account")
    credential: Credential = Field(default_factory=Credential)
    endpoint: str = Field(
        "https://management.azure.com",
        pattern=r"^https?://[^/?#]+$",
        description="Resource Manager of the cloud",
    )
    fresh_seconds: int = Field(
        300, ge=0, description="policies that were read are believed for so long"
    )


class RecordedAccount(Section):
    """`[account]` from a file, where no Resource Manager is: a development stack, or tests."""

    type: Literal["recorded"]
    path: Path = Field(description="JSON: answers of Resource Manager about the account")


Account = Annotated[ArmAccount | RecordedAccount, Field(discriminator="type")]
