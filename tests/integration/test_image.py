"""The container image, as far as it can be made without a container engine.

The files that its Dockerfile copies and the packages that it installs by their hashes are put
together below a folder, and pgkeep runs there as nobody in particular, who may write nothing.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from local.postgres_initdb import BACKUP_USER
from local.postgres_server import PostgresServer
from local.unprivileged import Account, hand_over, identity, may, server_account
from shared.settings.sections import Wal
from tests.harness.dockerfile import (
    arguments,
    copy_from_context,
    environment,
    installed_packages,
    stages,
)
from tests.harness.worker_services import Site, make_site
from worker.keys.generate import KeySet
from worker.postgres.connection import SUPPORTED_MAJORS
from worker.postgres.programs import NEEDED

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = (ROOT / "worker" / "Dockerfile").read_text("utf-8")
BASE, BUILD, BILL, LAST = stages(TEXT)
LIMIT_S: Final = 300
DEBIANS_PYTHON: Final = Path("/usr/bin/python3.11")
DEBIANS_LISTS: Final = Path("/var/lib/apt/lists")
# Debian 12 has PostgreSQL 15 only.
FROM_POSTGRESQL: Final = frozenset({"postgresql-16", "postgresql-17", "postgresql-18"})


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        **options,
    )


@dataclass(frozen=True)
class Image:
    """The image's own files; the system below them is this machine's. `account` owns nothing."""

    root: Path
    account: Account | None

    def pgkeep(
        self, *arguments: str, settings: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Through the image's own command, in a folder that is not the checkout."""
        script = (self.root / "usr/local/bin/pgkeep").read_text("utf-8")
        script = script.replace("/opt/", f"{self.root}/opt/")
        environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **settings}
        shell = ("sh", "-c", script, "pgkeep", *arguments)
        return run(*shell, cwd="/", env=environment, **identity(self.account))

    def times(self) -> dict[Path, int]:
        """Of every file and folder: whatever is written changes one."""
        return {path: path.lstat().st_mtime_ns for path in self.root.rglob("*")}


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with tempfile.TemporaryDirectory(prefix="pgkeep-image-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        _install(root / "opt" / "pgkeep")
        copy_from_context(LAST, ROOT, root)
        account = server_account()
        python = root / "opt/pgkeep/bin/python"
        # The Python of a development machine may lie in somebody's home.
        yield Image(root, account if may(account, "-x", python) else None)


def _install(venv: Path) -> None:
    """As the Dockerfile does: Debian's Python where there is one, and no pip in the end."""
    python = DEBIANS_PYTHON if DEBIANS_PYTHON.exists() else sys.executable
    made = run(python, "-m", "venv", "--without-pip", venv)
    assert made.returncode == 0, made.stderr
    pip = (sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "install", "--quiet")
    hashed = ("--require-hashes", "--only-binary", ":all:")
    lock = ROOT / "worker" / "requirements.lock"
    done = run(*pip, *hashed, "--requirement", lock)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def owned_site(place: Path, key_set: KeySet, source_cluster: PostgresServer, image: Image) -> Site:
    """Whose keys, repository and scratch are those of the account that pgkeep runs as."""
    shutil.copytree(key_set.signing.private.parent, place / "keys")
    site = make_site(place / "site", KeySet.below(place / "keys"), source_cluster)
    (site.folder / "scratch").mkdir()
    drill = {name: value for name, value in site.values["drill"].items() if name != "run_as"}
    site = replace(site, values={**site.values, "drill": drill}).changed(
        cluster={"dsn": source_cluster.dsn("postgres", BACKUP_USER), "tables": []}
    )
    hand_over(place, image.account)
    return site


def test_the_files_of_the_image_suffice_for_somebody_who_may_write_none_of_them(
    image: Image, owned_site: Site, place: Path
) -> None:
    """From the check to a drill, whose server runs as the same user."""
    heartbeat = place / "alive"
    settings = {"PGKEEP_CONFIG": str(owned_site.config), "PGKEEP_HEARTBEAT": str(heartbeat)}
    before = image.times()
    assert "restore" in image.pgkeep("--help", settings=settings).stdout
    name = owned_site.values["cluster"]["name"]
    for verb in (["check", "--settings-only"], ["check"], ["backup", name], ["verify", name]):
        done = image.pgkeep(*verb, "--json", settings=settings)
        assert done.returncode == 0, done.stdout + done.stderr
        assert '"outcome": "failed"' not in done.stdout
    drilled = image.pgkeep("drill", name, "--json", settings=settings)
    assert drilled.returncode == 0, drilled.stdout + drilled.stderr
    assert image.pgkeep("health", settings=settings).returncode == 75
    heartbeat.touch()
    assert image.pgkeep("health", settings=settings).returncode == 0
    assert image.times() == before


def test_t21_nothing_of_the_function_app_the_tests_or_local_is_in_the_image(image: Image) -> None:
    app = image.root / "opt/pgkeep/app"
    assert sorted(path.name for path in app.iterdir()) == ["shared", "worker"]
    packages = {path.name for path in image.root.glob("opt/pgkeep/lib/python*/site-packages/*")}
    unwanted = {"azure_functions", "hypothesis", "pip", "pytest", "schemathesis", "setuptools"}
    assert not packages & unwanted
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert ignored[1:] == ["*", "!shared", "!worker", "**/__pycache__"]
    wal_client = image.root / "usr/local/bin/pgkeep-wal"
    assert os.access(wal_client, os.X_OK)
    assert "push PATH NAME" in run(wal_client).stderr


def test_t21_the_image_is_made_of_what_somebody_looked_at() -> None:
    assert arguments(TEXT)["BASE_DIGEST"] is None
    assert BASE.base == "debian:bookworm-slim@${BASE_DIGEST}"
    assert [BUILD.base, BILL.base, LAST.base] == ["base", "build", "base"]
    assert not any(stage.of("ADD") for stage in (BASE, BUILD, BILL, LAST))
    assert "latest" not in TEXT
    assert "syntax=" not in TEXT
    assert not re.search(r"(?i)(password|secret|token|key)\s*=", TEXT)
    installs = [one.text for one in BUILD.of("RUN") if "pip install" in one.text]
    assert all("--require-hashes --only-binary :all:" in text for text in installs)
    from_bill = [one.words for one in LAST.of("COPY") if one.options.get("from") == "bill"]
    assert from_bill == [["/bill/python.cdx.json", "/opt/pgkeep/sbom/python.cdx.json"]]


def test_azures_builder_without_buildkit_understands_every_instruction() -> None:
    options = {option for one in LAST.of("COPY") for option in one.options}
    assert options == {"from"}
    runs = [one.text for stage in (BASE, BUILD, BILL, LAST) for one in stage.of("RUN")]
    assert not [text for text in runs if text.startswith("--")]
    assert "<<" not in TEXT


def test_it_runs_as_a_number_and_writes_to_its_volumes_only() -> None:
    [user] = LAST.of("USER")
    assert re.fullmatch(r"([1-9]\d{3,}):\1", user.text)
    assert json.loads(LAST.of("ENTRYPOINT")[0].text) == ["tini", "--", "pgkeep"]
    assert "tini" in installed_packages(BASE)
    assert LAST.of("STOPSIGNAL")[0].text == "SIGTERM"
    [volumes] = LAST.of("VOLUME")
    told = environment(LAST)
    wal = Wal()
    written = [Path(told["PGKEEP_DRILL__SCRATCH"]), Path(told["PGKEEP_HEARTBEAT"])]
    for path in (*written, wal.socket, wal.spool):
        assert any(path.is_relative_to(volume) for volume in json.loads(volumes.text)), path


def test_every_package_of_debian_is_in_its_lists_or_in_postgresqls_archive() -> None:
    wanted = installed_packages(BASE) | installed_packages(BUILD)
    assert {f"postgresql-{major}" for major in SUPPORTED_MAJORS} <= wanted
    if shutil.which("apt-cache") is None or not any(DEBIANS_LISTS.glob("*_Packages*")):
        pytest.skip("this machine has no lists of Debian's packages")
    known = run("apt-cache", "pkgnames").stdout.split()
    assert wanted - set(known) <= FROM_POSTGRESQL
    contents = run("dpkg", "--listfiles", "postgresql-15", "postgresql-client-15").stdout.split()
    if contents:
        assert {f"/usr/lib/postgresql/15/bin/{program}" for program in NEEDED} <= set(contents)


def test_the_lock_has_exactly_what_the_worker_asks_for_with_hashes() -> None:
    lock = (ROOT / "worker" / "requirements.lock").read_text("utf-8")
    asked = (ROOT / "worker" / "requirements.txt").read_text("utf-8")
    pins = dict(re.findall(r"^([a-z0-9._-]+)==(\S+) \\$", lock, re.MULTILINE))
    for line in asked.splitlines():
        if line and not line.startswith("#"):
            name, _, version = re.sub(r"\[.*\]", "", line).partition("==")
            assert pins[name.lower()] == version, f"run scripts/lock-image: {name}"
    assert lock.count("--hash=sha256:") >= len(pins)
