"""Examples of units and manifests in the documentation: they read, and say what they must."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from shared.jobs.messages import JOB_QUEUES
from tests.harness.deployed import deployed

DOCUMENTS: Final = Path(__file__).parents[2] / "docs"
AKS: Final = DOCUMENTS / "how-to" / "run-on-aks.md"
SERVICE: Final = DOCUMENTS / "how-to" / "run-as-a-service.md"
UNITS: Final = Path("/etc/systemd/system")
# Of systemd-analyze, in tenths: below 2.0 it calls a service OK; the rest is what a server needs.
EXPOSED_AT_MOST: Final = 20
OFFLINE_SINCE: Final = 250  # systemd's NEWS: `systemd-analyze security --offline`


def blocks(page: Path, language: str) -> list[str]:
    """Without the indent that a list gives them."""
    fenced = re.compile(rf"^( *)```{language}\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
    found = fenced.findall(page.read_text("utf-8"))
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def manifests() -> list[dict[str, Any]]:
    found = [one for block in blocks(AKS, "yaml") for one in yaml.safe_load_all(block)]
    return [one for one in found if "kind" in one]


def of_kind(kind: str) -> dict[str, Any]:
    [one] = [one for one in manifests() if one["kind"] == kind]
    return one


def pods() -> dict[str, dict[str, Any]]:
    """Templates of pods, by the names of what makes them."""
    job, receiver = of_kind("ScaledJob"), of_kind("Deployment")
    return {
        job["metadata"]["name"]: job["spec"]["jobTargetRef"]["template"],
        receiver["metadata"]["name"]: receiver["spec"]["template"],
    }


def told_in_azure() -> set[str]:
    """Names of what every worker that infra/ deploys is told, whatever it does."""
    made = deployed("production")
    hosts = [*made.of("Microsoft.App/jobs"), *made.of("Microsoft.App/containerApps")]
    told = [
        {one["name"] for one in host.get("properties.template.containers")[0]["env"]}
        for host in hosts
    ]
    return set.intersection(*told)


def test_every_yaml_of_the_documents_reads() -> None:
    found = [block for page in DOCUMENTS.rglob("*.md") for block in blocks(page, "yaml")]
    assert len(found) > len(manifests())
    for block in found:
        assert all(yaml.safe_load_all(block)), block


def test_every_pod_runs_as_nobody_on_a_root_it_cannot_write() -> None:
    for template in pods().values():
        pod = template["spec"]
        assert template["metadata"]["labels"]["azure.workload.identity/use"] == "true"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        [container] = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "@sha256:" in container["image"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_everywhere_a_worker_is_told_what_infra_tells_it() -> None:
    [environment] = [text for path, text in files().items() if path.name == "environment"]
    assert set(re.findall(r"^([A-Z_]+)=", environment, re.MULTILINE)) == told_in_azure()
    shared = of_kind("ConfigMap")["data"].keys()
    for template in pods().values():
        [container] = template["spec"]["containers"]
        own = {one["name"] for one in container["env"]} - {"PGKEEP_METRICS_ADDRESS"}
        assert own | shared == told_in_azure()


def test_a_scaled_job_serves_the_queue_that_it_is_started_for() -> None:
    spec = of_kind("ScaledJob")["spec"]
    [trigger] = spec["triggers"]
    queue = trigger["metadata"]["queueName"]
    assert queue in JOB_QUEUES
    [container] = spec["jobTargetRef"]["template"]["spec"]["containers"]
    assert container["args"] == ["run", "--once", "--queue", queue]
    authentication = of_kind("TriggerAuthentication")["metadata"]["name"]
    assert trigger["authenticationRef"]["name"] == authentication
    assert spec["jobTargetRef"]["backoffLimit"] == 0


def test_a_receiver_is_never_there_twice() -> None:
    deployment = of_kind("Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def files() -> dict[Path, str]:
    """Whose first line says where they lie."""
    found = (block.partition("\n") for block in blocks(SERVICE, "ini"))
    return {Path(head.split(",")[0].removeprefix("# ")): text for head, _, text in found}


def test_every_unit_ends_by_sigterm_with_time_to_settle() -> None:
    services = [text for path, text in files().items() if path.suffix == ".service"]
    assert len(services) == 3
    shared = files()[UNITS / "pgkeep-.service.d" / "confined.conf"]
    for text in services:
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.optionxform = str  # type: ignore[assignment]
        parser.read_string(text)
        parser.read_string(shared)
        service = parser["Service"]
        assert service["ExecStart"].startswith("/usr/local/bin/pgkeep ")
        assert (service["KillSignal"], service["KillMode"]) == ("SIGTERM", "mixed")
        assert int(service["TimeoutStopSec"]) >= 30
        assert service["User"] in {"pgkeep", "postgres"}


def systemd_version() -> int:
    """0: there is none here."""
    if shutil.which("systemd-analyze") is None:
        return 0
    words = subprocess.run(
        ["systemd-analyze", "--version"], check=True, capture_output=True, text=True
    ).stdout.split()
    return int(words[1])


@pytest.mark.skipif(systemd_version() < OFFLINE_SINCE, reason="it takes a newer systemd")
@pytest.mark.parametrize(
    "unit", ["pgkeep-worker@.service", "pgkeep-wal@.service", "pgkeep-agent.service"]
)
def test_systemd_has_nothing_against_a_unit_and_finds_it_confined(
    tmp_path: Path, unit: str
) -> None:
    instance = tmp_path / unit.replace("@", "@x")
    confined = tmp_path / "pgkeep-.service.d" / "confined.conf"
    confined.parent.mkdir()
    confined.write_text(files()[UNITS / "pgkeep-.service.d" / "confined.conf"], "utf-8")
    instance.write_text(files()[UNITS / unit].replace("/usr/local/bin/pgkeep", "/bin/true"))
    analyse("verify", "--man=no", str(instance))
    analyse("security", "--offline=yes", f"--threshold={EXPOSED_AT_MOST}", str(instance))


def analyse(*arguments: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", *arguments], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
