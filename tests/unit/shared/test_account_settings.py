"""The section [account]: what is refused, and which source of policies it opens."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared import adapters
from shared.errors import SettingsInvalid
from shared.repository.account_policies import PolicyReader
from shared.settings import load

REPOSITORY = '[repository]\ntype = "directory"\npath = "blobs"\n'
ARM = """[account]
type = "arm"
subscription_id = "11111111-2222-3333-4444-555555555555"
resource_group = "backups"
name = "pgkeepdata"
credential = { kind = "azure-cli" }
"""


def reader(tmp_path: Path, text: str) -> PolicyReader | None:
    file = tmp_path / "pgkeep.toml"
    file.write_text(REPOSITORY + text, "utf-8")
    return adapters.account_policies(
        load(file, {}).account, lambda: datetime(2026, 11, 22, tzinfo=UTC)
    )


def test_without_the_section_nobody_reads_policies(tmp_path: Path) -> None:
    assert reader(tmp_path, "") is None


def test_resource_manager_is_opened_without_sending_anything(tmp_path: Path) -> None:
    assert reader(tmp_path, ARM) is not None


def test_a_recording_lies_beside_the_settings(tmp_path: Path) -> None:
    recording = '{"blobService": {"properties": {"isVersioningEnabled": true}}}'
    (tmp_path / "policies.json").write_text(recording, "utf-8")
    recorded = reader(tmp_path, '[account]\ntype = "recorded"\npath = "policies.json"\n')
    assert recorded is not None
    assert recorded.read().protection.versioning


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"arm"', '"tape"', "account"),
        ("11111111-", "1-", "line 6: account.subscription_id"),
        ("pgkeepdata", "PgKeep", "line 8: account.name"),
        ("backups", "back/ups", "line 7: account.resource_group"),
        ("credential", "colour", "account.colour"),
        ('"azure-cli"', '"emulator-key"', "gives no token"),
        ('"azure-cli"', '"managed-identity"', "needs client_id"),
    ],
)
def test_a_section_that_cannot_work_is_refused(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    with pytest.raises(SettingsInvalid, match=told):
        reader(tmp_path, ARM.replace(old, new))
