"""The container image, as far as it can be made without a container engine.

The files that its Dockerfile copies and the packages that it installs by their hashes are put
together below a folder, and pgkeep runs there as nobody in particular, who may write nothing.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from local.postgres_initdb import BACKUP_USER
from local.postgres_server import PostgresServer
from local.unprivileged import Account, identity, may, server_account
from tests.harness.dockerfile import (
    arguments,
    copy_from_context,
    installed_packages,
    stages,
)
from tests.harness.worker_services import make_site
from worker.keys.generate import KeySet

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = (ROOT / "worker" / "Dockerfile").read_text("utf-8")
BASE, BUILD, LAST = stages(TEXT)
MAJORS: Final = ("15", "16", "17", "18")
LIMIT_S: Final = 300
DEBIANS_PYTHON: Final = Path("/usr/bin/python3.11")


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        **options,
    )


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """The root of the image's own files, for everybody to read; the system is this machine's."""
    with tempfile.TemporaryDirectory(prefix="pgkeep-image-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        _fill(root)
        yield root


def _fill(root: Path) -> None:
    venv = root / "opt" / "pgkeep"
    assert run(sys.executable, "-m", "venv", venv).returncode == 0
    lock = ROOT / "worker" / "requirements.lock"
    install = ("install", "--quiet", "--require-hashes", "--only-binary", ":all:")
    done = run(venv / "bin" / "pip", *install, "--requirement", lock)
    assert done.returncode == 0, done.stderr
    copy_from_context(LAST, ROOT, root)


def pgkeep(
    image: Path,
    *arguments: str,
    config: Path | None = None,
    python: Path | None = None,
    account: Account | None = None,
) -> subprocess.CompletedProcess[str]:
    """Through the image's own command, in a folder that is not the checkout."""
    command = (image / "usr/local/bin/pgkeep").read_text("utf-8").replace("/opt/", f"{image}/opt/")
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    if config:
        environment["PGKEEP_CONFIG"] = str(config)
    if python:
        [packages] = (image / "opt/pgkeep/lib").glob("python*/site-packages")
        command = command.replace(f"{image}/opt/pgkeep/bin/python", str(python))
        command = command.replace("/opt/pgkeep/app ", f"/opt/pgkeep/app:{packages} ")
    shell = ("sh", "-c", command, "pgkeep", *arguments)
    return run(*shell, cwd="/", env=environment, **identity(account))


def test_the_files_of_the_image_suffice_for_every_verb_and_a_real_server(
    image: Path, source_cluster: PostgresServer, key_set: KeySet, place: Path
) -> None:
    version = pgkeep(image, "--help")
    assert version.returncode == 0, version.stderr
    assert "restore" in version.stdout
    site = make_site(place / "site", key_set, source_cluster)
    site = site.changed(cluster={"dsn": source_cluster.dsn("postgres", BACKUP_USER), "tables": []})
    settings = pgkeep(image, "check", "--settings-only", config=site.config)
    assert settings.returncode == 0, settings.stderr
    checked = pgkeep(image, "check", "--json", config=site.config)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert '"outcome": "failed"' not in checked.stdout
    taken = pgkeep(image, "backup", site.cluster.name, "--json", config=site.config)
    assert taken.returncode == 0, taken.stderr
    verified = pgkeep(image, "verify", site.cluster.name, "--json", config=site.config)
    assert verified.returncode == 0, verified.stderr


def test_t21_nothing_of_the_function_app_the_tests_or_local_is_in_the_image(image: Path) -> None:
    app = image / "opt/pgkeep/app"
    assert sorted(path.name for path in app.iterdir()) == ["shared", "worker"]
    packages = {path.name for path in (image / "opt/pgkeep/lib").glob("python*/site-packages/*")}
    assert not packages & {"azure_functions", "pytest", "hypothesis", "schemathesis"}
    wal_client = image / "usr/local/bin/pgkeep-wal"
    assert os.access(wal_client, os.X_OK)
    assert "push PATH NAME" in run(wal_client).stderr


def test_it_runs_as_nobody_in_particular_who_writes_nothing_outside_the_volumes(
    image: Path,
) -> None:
    account = server_account()
    if not may(account, "-x", DEBIANS_PYTHON):
        pytest.skip("this machine has not the python of the image")
    before = {path: path.stat().st_mtime_ns for path in image.rglob("*")}
    done = pgkeep(image, "check", "--settings-only", python=DEBIANS_PYTHON, account=account)
    assert done.returncode == 2, done.stderr
    assert "settings-invalid" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in image.rglob("*")} == before


def test_t21_the_image_is_made_of_what_somebody_looked_at() -> None:
    assert arguments(TEXT) == {"BASE_DIGEST": None}
    assert BASE.base == "debian:bookworm-slim@${BASE_DIGEST}"
    assert [BUILD.base, LAST.base] == ["base", "base"]
    [user] = LAST.of("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user.text)
    assert not any(stage.of("ADD") for stage in (BASE, BUILD, LAST))
    assert "latest" not in TEXT
    assert not re.search(r"(?i)(password|secret|token|key)\s*=", TEXT)
    [entrypoint] = LAST.of("ENTRYPOINT")
    assert entrypoint.text == '["tini", "--", "pgkeep"]'
    assert "--require-hashes" in " ".join(one.text for one in BUILD.of("RUN"))


def test_every_package_of_debian_is_in_its_lists_or_in_postgresqls_archive() -> None:
    wanted = installed_packages(BASE) | installed_packages(BUILD)
    assert {f"postgresql-{major}" for major in MAJORS} <= wanted
    known = run("apt-cache", "policy", *sorted(wanted))
    if known.returncode != 0 or not known.stdout:
        pytest.skip("this machine has no lists of Debian's packages")
    found = {line.removesuffix(":") for line in known.stdout.splitlines() if not line[:1].isspace()}
    assert wanted - found <= {"postgresql-16", "postgresql-17", "postgresql-18"}


def test_the_lock_has_exactly_what_the_worker_asks_for_with_hashes() -> None:
    lock = (ROOT / "worker" / "requirements.lock").read_text("utf-8")
    asked = (ROOT / "worker" / "requirements.txt").read_text("utf-8")
    pins = dict(re.findall(r"^([a-z0-9._-]+)==(\S+) \\$", lock, re.MULTILINE))
    for line in asked.splitlines():
        if line and not line.startswith("#"):
            name, _, version = re.sub(r"\[.*\]", "", line).partition("==")
            assert pins[name.lower()] == version, f"run scripts/lock-image: {name}"
    assert lock.count("--hash=sha256:") >= len(pins)
