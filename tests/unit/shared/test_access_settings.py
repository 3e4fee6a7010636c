"""The section `[access]`: absent, or one of two types, and the lax one for development alone."""

from pathlib import Path

import pytest

from shared.errors import SettingsInvalid
from shared.settings import EasyAuth, LocalTokens, Settings, load

TENANT = "11111111-2222-3333-4444-555555555555"
EASY_AUTH = f'type = "easy-auth"\ntenant_id = "{TENANT}"\naudiences = ["api-id"]'


def read(folder: Path, access: str, profile: str = "development") -> Settings:
    text = f'profile = "{profile}"\n[repository]\ntype = "directory"\npath = "repo"\n{access}'
    (folder / "pgkeep.toml").write_text(text)
    return load(folder / "pgkeep.toml", {})


def test_without_the_section_there_is_no_access(tmp_path: Path) -> None:
    assert read(tmp_path, "").access is None


def test_each_type_reads_and_a_key_lies_beside_the_file(tmp_path: Path) -> None:
    azure = read(tmp_path, f"[access]\n{EASY_AUTH}", "production").access
    assert isinstance(azure, EasyAuth)
    assert (azure.tenant_id, azure.audiences) == (TENANT, ("api-id",))
    local = read(tmp_path, '[access]\ntype = "local"\npublic_key = "access.pem"').access
    assert isinstance(local, LocalTokens)
    assert local.public_key == tmp_path / "access.pem"


@pytest.mark.parametrize(
    ("access", "profile", "told"),
    [
        ('type = "local"\npublic_key = "x"', "production", "access of type 'local' is for the dev"),
        ("", "production", "access.type: is missing"),
        ('type = "none"', "production", "access"),
        (EASY_AUTH.replace(TENANT, "common"), "production", "access.tenant_id"),
        (EASY_AUTH.replace(TENANT, TENANT.upper() + "A"), "production", "access.tenant_id"),
        (EASY_AUTH.replace('"api-id"', ""), "production", "access.audiences"),
        (f"{EASY_AUTH}\nissuer = 'x'", "production", "access.issuer"),
    ],
)
def test_what_would_let_others_in_is_refused_with_its_key(
    tmp_path: Path, access: str, profile: str, told: str
) -> None:
    with pytest.raises(SettingsInvalid, match=told):
        read(tmp_path, f"[access]\n{access}", profile)
