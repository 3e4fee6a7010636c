"""Examples of units and manifests in the documentation: they read, and say what they must."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

HOW_TO: Final = Path(__file__).parents[2] / "docs" / "how-to"


def blocks(page: str, language: str) -> list[str]:
    text = (HOW_TO / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def manifests(page: str) -> list[dict[str, Any]]:
    found = [one for block in blocks(page, "yaml") for one in yaml.safe_load_all(block)]
    return [one for one in found if isinstance(one, dict)]


def pods(page: str) -> dict[str, dict[str, Any]]:
    """Specifications of pods, by the names of what makes them."""
    found = {}
    for one in manifests(page):
        spec = one.get("spec", {})
        template = spec.get("template") or spec.get("jobTargetRef", {}).get("template")
        if template:
            found[one["metadata"]["name"]] = template["spec"]
    return found


def test_every_pod_runs_as_nobody_on_a_root_it_cannot_write() -> None:
    made = pods("run-on-aks.md")
    assert made.keys() == {"pgkeep-backup", "pgkeep-wal-orders"}
    for pod in made.values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        [container] = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert "@sha256:" in container["image"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert made["pgkeep-backup"]["containers"][0]["args"] == [
        "run", "--once", "--queue", "pgkeep-backup",
    ]  # fmt: skip


def test_a_receiver_is_never_there_twice() -> None:
    [deployment] = [one for one in manifests("run-on-aks.md") if one.get("kind") == "Deployment"]
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def units() -> dict[str, str]:
    found = (block.partition("\n") for block in blocks("run-as-a-service.md", "ini"))
    return {Path(name.split(",")[0].removeprefix("# ")).name: text for name, _, text in found}


def test_every_unit_reads_and_ends_by_sigterm_with_time_to_settle() -> None:
    services = {name: text for name, text in units().items() if name.endswith(".service")}
    assert len(services) == 3
    for name, text in services.items():
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read_string(text)
        service = parser["Service"]
        assert service["ExecStart"].startswith("/usr/local/bin/pgkeep "), name
        assert service["KillSignal"] == "SIGTERM"
        assert int(service["TimeoutStopSec"]) >= 30
        assert service["User"] in {"pgkeep", "postgres"}
        assert service["NoNewPrivileges"] == "yes"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_has_nothing_against_the_units(tmp_path: Path) -> None:
    for name, text in units().items():
        if name.endswith(".service"):
            path = tmp_path / name.replace("@", "@x")
            path.write_text(text.replace("/usr/local/bin/pgkeep", "/bin/true"), "utf-8")
            done = subprocess.run(
                ["systemd-analyze", "verify", "--man=no", path],
                check=False,
                capture_output=True,
                text=True,
            )
            assert name not in done.stderr, done.stderr
