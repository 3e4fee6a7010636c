"""`pgkeep` as people and scripts run it: one JSON document, exit statuses, no secret anywhere."""

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from local.postgres_initdb import BACKUP_USER
from local.postgres_server import PostgresServer
from local.unprivileged import server_account
from tests.harness.sample_database import DATABASE
from tests.harness.worker_services import CLUSTER, Site, make_site, startable, toml_of
from worker.cli import MappingInvalid, parse_mappings
from worker.keys.generate import KeySet

pytestmark = pytest.mark.integration

CANARY = "canary-password"
HOSTILE = {
    "PGHOST": "192.0.2.1",
    "PGPORT": "1",
    "PGUSER": "nobody",
    "PGPASSWORD": "wrong",
    "PGDATABASE": "nowhere",
    "PGOPTIONS": "-c default_transaction_read_only=on -c search_path=evil",
    "PGSSLMODE": "disable",
    "PGSERVICE": "evil",
    "PGSERVICEFILE": "/nowhere/service.conf",
    "PGPASSFILE": "/nowhere/passfile",
    "PGTARGETSESSIONATTRS": "standby",
}


def answer(
    site: Site, *arguments: str, status: int = 0, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The one JSON document of a verb that ends with `status`."""
    done = site.pgkeep(*arguments, "--json", environment=environment)
    assert done.returncode == status, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def error_of(site: Site, *arguments: str, status: int) -> dict[str, str]:
    found = answer(site, *arguments, status=status)
    assert set(found) == {"error"}
    error: dict[str, str] = found["error"]
    assert set(error) == {"code", "fact", "hint"}
    assert error["fact"][0] == error["fact"][0].lower() or error["fact"][0] in "/'\""
    assert error["hint"].endswith(".")
    return error


def owner() -> list[str]:
    account = server_account()
    return ["--owner", account.name] if account else []


def test_every_verb_answers_with_one_json_document_whatever_the_environment_says(
    site: Site, source_cluster: PostgresServer
) -> None:
    """T18: PG* variables neither change the target nor how it is talked to."""
    made = answer(site, "backup", CLUSTER, environment=HOSTILE)
    system = source_cluster.query("SELECT system_identifier::text FROM pg_control_system()")
    assert [(made["system_identifier"],)] == system
    label = made["label"]
    assert answer(site, "show", CLUSTER)["digest"] == made["digest"]
    listed = answer(site, "list")["backups"]
    assert [item["label"] for item in listed] == [label]
    assert listed[0]["problem"] is None
    assert answer(site, "list", "other")["backups"] == []
    assert answer(site, "verify", CLUSTER, "--label", label)["passed"] is True
    assert answer(site, "verify", CLUSTER, "--ciphertext-only")["deep"] is False
    target = site.folder / "data"
    plan = answer(site, "restore", CLUSTER, str(target), "--dry-run", *owner())
    assert plan["label"] == label
    assert not target.exists()
    done = answer(site, "restore", CLUSTER, str(target), *owner())
    assert (done["files"], done["bytes"]) == (plan["files"], plan["bytes"])
    assert list(done["phases_ms"]) == ["plan", "keys", "fetch_apply"]
    assert startable(target)
    report = answer(site, "drill", CLUSTER, environment=HOSTILE)
    assert report["verdict"] == "proven", report
    checks = answer(site, "check", environment=HOSTILE)["checks"]
    assert {check["outcome"] for check in checks} == {"passed"}, checks


def test_people_get_sentences(committed_site: Site) -> None:
    listed = committed_site.pgkeep("list")
    assert str(committed_site.newest().label) in listed.stdout
    assert listed.stderr == ""
    shown = committed_site.pgkeep("show", CLUSTER)
    assert "PostgreSQL" in shown.stdout
    plan = committed_site.pgkeep(
        "restore", CLUSTER, str(committed_site.folder / "data"), "--dry-run", *owner()
    )
    assert "it is the newest" in plan.stdout
    assert "files" in plan.stdout


def test_i10_an_error_is_a_code_a_fact_and_a_hint_and_has_a_status(
    committed_site: Site, place: Path
) -> None:
    site = committed_site
    label = "20200101T000000Z-F-aaaa"
    assert error_of(site, "show", CLUSTER, "--label", label, status=4)["code"] == "backup-not-found"
    assert error_of(site, "backup", "other", status=2)["code"] == "settings-invalid"
    assert error_of(site, "show", "Not-A-Name", status=2)["code"] == "cluster-name-invalid"
    (place / "full").mkdir()
    (place / "full" / "theirs").write_text("x")
    restore = ("restore", CLUSTER, str(place / "full"), *owner())
    assert error_of(site, *restore, status=3)["code"] == "target-not-empty"
    mapping = (*restore, "-T", "no equals sign")
    assert error_of(site, *mapping, status=2)["code"] == "tablespace-mapping-invalid"
    in_words = site.pgkeep("show", CLUSTER, "--label", label)
    assert in_words.returncode == 4
    assert in_words.stderr.startswith("pgkeep: backup-not-found: ")
    assert "\nHINT: " in in_words.stderr
    usage = site.pgkeep("restore")
    assert usage.returncode == 2
    assert "Usage" in usage.stderr


def test_a_damaged_backup_ends_verify_and_drill_with_status_5(
    committed_site: Site, place: Path
) -> None:
    site = committed_site.copied(place / "copy")
    volume = next(site.repository.glob("full/*/*/base.pgdata.0001"))
    volume.chmod(0o600)
    volume.write_bytes(bytes(volume.stat().st_size))
    report = answer(site, "verify", CLUSTER, status=5)
    assert report["passed"] is False
    assert report["findings"][0]["code"] == "segment-corrupt"
    report = answer(site, "drill", CLUSTER, status=5)
    assert report["verdict"] == "failed"


def test_a_bad_settings_file_is_told_with_file_line_and_key(site: Site) -> None:
    site.config.write_text(toml_of({**site.values, "worker": {"threads": 1}}))
    error = error_of(site, "list", status=2)
    assert error["code"] == "settings-invalid"
    assert str(site.config) in error["fact"]
    assert "worker.threads" in error["fact"]
    missing = site.pgkeep("list", "--config", "/nowhere/pgkeep.toml")
    assert missing.returncode == 2
    assert "/nowhere/pgkeep.toml" in missing.stderr


def test_check_names_what_would_fail_and_ends_with_status_3(
    source_cluster: PostgresServer, key_set: KeySet, place: Path
) -> None:
    site = make_site(place / "site", key_set, source_cluster)
    site = site.changed(
        keys={"recipients": [{"type": "pem", "path": str(key_set.wrapping.public)}]},
        cluster={"dsn": source_cluster.dsn(DATABASE, BACKUP_USER), "tables": ["public.nothing"]},
    )
    checks = answer(site, "check", status=3)["checks"]
    found = {check["name"]: check for check in checks if check["outcome"] == "failed"}
    assert set(found) == {"recipients", f"{CLUSTER}: tables"}
    assert "losing it would lose every backup" in found["recipients"]["detail"]
    assert "absent" in found[f"{CLUSTER}: tables"]["detail"]


def test_i7_no_password_and_no_key_leaves_the_process(
    source_cluster: PostgresServer, site: Site
) -> None:
    """Canaries: the password and every private key, in output, logs, errors and clear blobs."""
    password = source_cluster.passwords[BACKUP_USER]
    wrong = make_conninfo(source_cluster.dsn(DATABASE, BACKUP_USER), password=CANARY)
    said = []
    for verb in (("backup", CLUSTER), ("verify", CLUSTER), ("show", CLUSTER), ("check",)):
        done = site.pgkeep(*verb)
        said.append(done.stdout + done.stderr)
    refused = site.changed(cluster={"dsn": wrong})
    for verb in (("backup", CLUSTER), ("check",)):
        done = refused.pgkeep(*verb, "--json")
        assert done.returncode != 0
        said.append(done.stdout + done.stderr)
    documents = [path.read_text() for path in site.repository.rglob("*.json")]
    assert len(documents) >= 8
    secrets = [password, CANARY, "PRIVATE KEY"]
    private = (site.keys.wrapping, site.keys.escrow, site.keys.signing)
    secrets += [pair.private.read_text().splitlines()[1] for pair in private]
    for text in (*said, *documents):
        assert not [secret for secret in secrets if secret in text]
    assert "documents" not in "".join(documents), "tables are named in sealed objects only"


def test_keys_generate_makes_private_files_and_never_overwrites(site: Site, place: Path) -> None:
    done = site.pgkeep("keys", "generate", str(place / "new"))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
    for path in (place / "new").glob("*.private.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "PRIVATE" not in done.stdout
    made = answer(site, "keys", "generate", str(place / "other"))
    assert set(made) == {"wrapping", "escrow", "manifest", "signing"}
    assert made["escrow"]["public"] == str(place / "other" / "escrow.public.pem")
    again = site.pgkeep("keys", "generate", str(place / "new"))
    assert again.returncode == 7
    assert "key-file-exists" in again.stderr


@pytest.mark.parametrize(
    ("texts", "mappings"),
    [
        ([], {}),
        (["/a=/b", "/c d=/e"], {"/a": "/b", "/c d": "/e"}),
        ([r"/a\=b=/c\=d"], {"/a=b": "/c=d"}),
    ],
)
def test_mappings_are_read_as_pg_basebackup_reads_them(
    texts: list[str], mappings: dict[str, str]
) -> None:
    assert parse_mappings(texts) == mappings


@pytest.mark.parametrize("texts", [["/a"], ["=/b"], ["/a="], ["/a=/b=/c"], ["/a=/b", "/a=/c"]])
def test_b14_malformed_mappings_are_refused(texts: list[str]) -> None:
    with pytest.raises(MappingInvalid):
        parse_mappings(texts)
