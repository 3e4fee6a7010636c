"""Settings from a blob, as a container or the function app reads them."""

import pytest
from azure.storage.blob import BlobServiceClient

from local.azurite import EmulatedAccount
from shared import adapters
from shared.errors import SettingsInvalid
from shared.settings import AzureRepository

pytestmark = pytest.mark.integration


def test_the_settings_are_read_from_the_blob_that_the_environment_names(
    fresh_azurite_account: EmulatedAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = fresh_azurite_account
    url = f"{account.blob_url}/settings/pgkeep.toml"
    for name, value in {
        "PGKEEP_CONFIG": url,
        "PGKEEP_IDENTITY__KIND": "emulator-key",
        "PGKEEP_IDENTITY__ACCOUNT_KEY": account.credential.named_key.key,
        "PGKEEP_REPOSITORY__ACCOUNT_URL": account.blob_url,
    }.items():
        monkeypatch.setenv(name, value)
    with BlobServiceClient(account.blob_url, credential=account.credential) as client:
        container = client.create_container("settings")
        with pytest.raises(SettingsInvalid, match="cannot read"):
            adapters.load_settings()
        container.upload_blob(
            "pgkeep.toml", b'[repository]\ntype = "azure"\n[drill]\nscratch = "d"\n'
        )
        container.close()
    settings = adapters.load_settings()
    assert isinstance(settings.repository, AzureRepository)
    assert settings.repository.account_url == account.blob_url
    assert settings.repository.credential.kind == "emulator-key"
    assert str(settings.drill.scratch) == "d"


def test_an_identity_that_makes_no_sense_is_told_before_anything_is_asked() -> None:
    url = "https://account.blob.core.windows.net/settings/pgkeep.toml"
    with pytest.raises(SettingsInvalid, match="does not say who reads"):
        adapters.settings_document(url, {"PGKEEP_IDENTITY__KIND": "guest"})
