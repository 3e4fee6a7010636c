"""What azd and people run before and after a deployment, beside commands that only note it."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from functions.callers import Role
from shared.settings import load as load_settings
from tests.harness.bicep_parameters import variables_of
from tests.harness.bicep_syntax import load
from tests.harness.deployed import INFRA, MAIN, PARAMETERS, deployed
from tests.harness.hook_console import HOOKS, HookConsole
from worker.keys.generate import generate_key_set
from worker.keys.public_half import PublicHalf
from worker.postgres.service_file import service_conninfo

ROOT: Final = INFRA.parent
SCRIPTS: Final = sorted(path for path in HOOKS.iterdir() if path.suffix == "")
AZURE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "azure.yaml").read_text("utf-8"))
# By their names in the vault: what `pgkeep keys generate` calls such a pair.
KEYS: Final = {"wrap": "wrapping", "manifest": "manifest", "sign": "signing"}


def outputs() -> set[str]:
    return {one.name for one in load(MAIN).of("output")}


def roles() -> list[dict[str, Any]]:
    return list(json.loads((HOOKS / "app-roles.json").read_text("utf-8")))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_hook_can_be_run_and_stops_at_the_first_failure(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    lines = script.read_text("utf-8").splitlines()
    assert lines[0] == "#!/bin/sh"
    assert lines[1].startswith("# ")
    assert "set -eu" in lines
    subprocess.run(["sh", "-n", script], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, script], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_what_a_hook_asks_its_environment_for_is_there(script: Path) -> None:
    text = script.read_text("utf-8")
    asked = set(re.findall(r"\b(?:PGKEEP|AZURE)_[A-Z_]+\b", text))
    assert asked <= outputs() | variables_of(PARAMETERS)
    by_azd = script.name in AZURE["hooks"]
    for name in set(re.findall(r"\$\{(\w+)\}", text)) & asked:
        # Only azd puts outputs there, and what nobody has set needs a default.
        assert by_azd, name
        assert name in outputs() or f"${{{name}:-" in text, name


def test_the_policies_are_locked_only_by_no_hook_of_azd() -> None:
    run_by_azd = [(ROOT / hook["run"]).read_text("utf-8") for hook in AZURE["hooks"].values()]
    assert not any("immutability-policy" in text for text in run_by_azd)


@pytest.mark.parametrize(("typed", "status", "locked"), [("stbackup\n", 0, 4), ("yes\n", 1, 0)])
def test_policies_are_locked_by_who_types_the_name_of_the_account(
    tmp_path: Path, typed: str, status: int, locked: int
) -> None:
    console = HookConsole(tmp_path)
    console.answer("azd env get-value PGKEEP_BACKUP_ACCOUNT", "stbackup")
    console.answer("--container-name wal --query state", "Locked")
    console.answer("--query state", "Unlocked")
    assert console.run("lock-immutability", typed=typed).returncode == status
    assert len(console.calls("immutability-policy lock")) == locked
    assert bool(console.calls("PGKEEP_IMMUTABILITY_LOCKED true")) is (status == 0)


@pytest.mark.parametrize(
    ("present", "files", "uploads", "said"),
    [
        ("true", ["pgkeep.toml"], 0, "the settings are there"),
        ("false", ["pgkeep.toml"], 1, "uploaded pgkeep.toml"),
        ("false", [], 0, "infra/hooks/begin-settings > pgkeep.toml"),
    ],
)
def test_settings_are_uploaded_once_and_never_replaced(
    tmp_path: Path, present: str, files: list[str], uploads: int, said: str
) -> None:
    console = HookConsole(tmp_path)
    console.answer("blob exists", present)
    for name in files:
        (tmp_path / name).touch()
    done = console.run("postprovision", environment={"PGKEEP_HOST_ACCOUNT": "sthost"})
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert len(console.calls("blob upload")) == uploads


def test_a_hook_that_may_not_see_the_settings_says_so(tmp_path: Path) -> None:
    console = HookConsole(tmp_path)
    console.answer("blob exists", status=3)
    done = console.run("postprovision", environment={"PGKEEP_HOST_ACCOUNT": "sthost"})
    assert done.returncode == 1
    assert "azd hooks run postprovision" in done.stderr


def begun_settings(console: HookConsole, halves: Path) -> str:
    """The output of begin-settings for a vault with the keys that lie in `halves`."""
    environment = {"PGKEEP_BACKUP_URL": "https://stbackup.blob.core.windows.net"}
    for name, file in KEYS.items():
        key_id = f"https://vault/keys/{name}/1"
        environment[f"PGKEEP_{name.upper()}_KEY_ID"] = key_id
        pem = (halves / f"{file}.public.pem").read_text("utf-8")
        half = PublicHalf(key_id, "sign" if name == "sign" else "wrap", pem)
        console.answer(key_id, half.as_settings())
    done = console.run("begin-settings", environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def block_of_tutorial(opening: str) -> str:
    text = (ROOT / "docs/tutorials/deploy-to-azure.md").read_text("utf-8")
    return text.partition(f"{opening} <<'END'\n")[2].partition("\nEND\n")[0]


def test_the_settings_of_the_tutorial_are_whole_and_open_nothing_to_the_wrong(
    tmp_path: Path,
) -> None:
    generate_key_set(tmp_path / "keys")
    begun = begun_settings(HookConsole(tmp_path), tmp_path / "keys")
    text = begun + block_of_tutorial("cat >> pgkeep.toml")
    file = tmp_path / "pgkeep.toml"
    file.write_text(text, "utf-8")
    settings = load_settings(file, {})
    assert settings.profile == "production"
    # The manifest key opens lists of files only: it must not receive the keys of backups.
    keys = tomllib.loads(text)["keys"]
    assert [key["key_id"] for key in keys["recipients"]] == ["https://vault/keys/wrap/1"]
    assert keys["manifest_recipient"]["key_id"] == "https://vault/keys/manifest/1"
    assert [key["key_id"].split("/")[-2] for key in keys["unwrap"]] == ["wrap", "manifest"]
    assert keys["signing"]["key_id"] == keys["pinned"][0]["key_id"] == "https://vault/keys/sign/1"


def test_the_logins_of_the_tutorial_are_read_from_where_the_templates_put_them(
    tmp_path: Path,
) -> None:
    file = tmp_path / "pg_service.conf"
    file.write_text(block_of_tutorial("cat > pg_service.conf"), "utf-8")
    assert "host=db.example.net" in service_conninfo(file, "orders")
    [job] = [one for one in deployed().of("Microsoft.App/jobs") if one.name == "pgkeep-backup"]
    template = job.get("properties.template")
    [volume] = [one for one in template["volumes"] if one["storageType"] == "Secret"]
    [mount] = [
        one
        for one in template["containers"][0]["volumeMounts"]
        if one["volumeName"] == volume["name"]
    ]
    path = f"{mount['mountPath']}/{volume['secrets'][0]['path']}"
    assert f'service_file = "{path}"' in block_of_tutorial("cat >> pgkeep.toml")


@pytest.mark.parametrize(("health", "subscriptions"), [(0, 1), (22, 0)])
def test_events_are_subscribed_to_when_the_app_runs(
    tmp_path: Path, health: int, subscriptions: int
) -> None:
    console = HookConsole(tmp_path)
    console.answer("curl", status=health)
    environment = dict.fromkeys(outputs(), "value")
    done = console.run("postdeploy", environment=environment)
    assert (done.returncode == 0) is (health == 0)
    assert len(console.calls("event-subscriptions.bicep")) == subscriptions


def test_a_pushed_image_is_used_by_its_digest(tmp_path: Path) -> None:
    console = HookConsole(tmp_path)
    console.answer("imagetools inspect", "sha256:feed")
    registry = {"AZURE_CONTAINER_REGISTRY_ENDPOINT": "crx.azurecr.io"}
    done = console.run("push-image", "sha256:base", "1.2.3", environment=registry)
    assert done.returncode == 0, done.stderr
    assert console.calls("acr login") == ["az acr login --name crx"]
    [build] = console.calls("buildx build")
    assert "BASE_DIGEST=sha256:base --tag crx.azurecr.io/pgkeep:1.2.3 --push" in build
    assert console.calls("PGKEEP_WORKER_IMAGE crx.azurecr.io/pgkeep@sha256:feed")


@pytest.mark.parametrize(("known", "made"), [("", 1), ("client-id", 0)])
def test_an_app_registration_is_made_once(tmp_path: Path, known: str, made: int) -> None:
    console = HookConsole(tmp_path)
    console.answer("ad app list", known)
    console.answer("ad app create", "client-id")
    done = console.run("make-app-registration")
    assert done.stdout == "client-id\n"
    assert len(console.calls("ad app create")) == len(console.calls("ad sp create")) == made
    patches = [
        call.rpartition("@")[2] for call in console.calls("/applications(appId='client-id')")
    ]
    assert patches == ["infra/hooks/app-api.json", "infra/hooks/app-clients.json"]


@pytest.mark.parametrize(("found", "posted"), [("", 1), ("assignment", 0)])
def test_a_role_is_assigned_once(tmp_path: Path, found: str, posted: int) -> None:
    console = HookConsole(tmp_path)
    console.answer("appRoles[?value=='operator']", "role-id")
    console.answer("--method get", found)
    environment = {"PGKEEP_AUTH_CLIENT_ID": "client-id"}
    done = console.run("assign-role", "operator", "me@example.net", environment=environment)
    assert done.returncode == 0, done.stderr
    assert len(console.calls("--method post")) == posted
    assert console.run("assign-role", "king", "me@x", environment=environment).returncode == 1


def test_the_app_registration_has_the_roles_of_the_code_and_people_alone_approve() -> None:
    kinds = {role["value"]: role["allowedMemberTypes"] for role in roles()}
    assert kinds.keys() == {role.value for role in Role}
    assert [value for value, who in kinds.items() if who == ["User"]] == [Role.APPROVER]
    api = json.loads((HOOKS / "app-api.json").read_text("utf-8"))["api"]
    clients = json.loads((HOOKS / "app-clients.json").read_text("utf-8"))["api"]
    assert api["requestedAccessTokenVersion"] == 2
    [scope] = api["oauth2PermissionScopes"]
    [client] = clients["preAuthorizedApplications"]
    assert client["delegatedPermissionIds"] == [scope["id"]]
