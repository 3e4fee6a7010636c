"""Chains restored in place, and single files of them: what the source held, and nothing twice."""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from local.postgres_server import PostgresServer
from shared.domain.cluster import cluster_name
from shared.errors import ChainBroken
from shared.repository import layout
from shared.repository.backups import BackupNotFound
from shared.repository.documents import DrillReport
from tests.harness.chain_lab import dump_all
from tests.harness.chain_site import CommittedChain
from tests.harness.deadline import wait_until
from tests.harness.resealed import plain_object
from tests.harness.worker_services import CLUSTER, StartRestored, startable, verify_with_postgres
from worker.commands.drill import DrillRequest, drill
from worker.commands.extract import CONTROL_NAME, ExtractRequest, NothingToExtract, extract
from worker.commands.known_backups import read_backups
from worker.commands.restore import restore
from worker.pipeline.file_writer import TargetNotEmpty
from worker.postgres.backup_manifest import parse
from worker.postgres.manifest_text import manifest_chunks

pytestmark = pytest.mark.integration

OPEN_LIMIT_S = 30


def new_data(place: Path, name: str) -> Path:
    """Beside it the restored tablespaces go."""
    (place / name).mkdir()
    return place / name / "data"


def restored(chain: CommittedChain, data: Path, number: int = -1) -> Path:
    restore(chain.site.services(), chain.request(data, number))
    return data


def contents(data: Path) -> dict[str, str]:
    found = {}
    for folder, _, names in os.walk(data, followlinks=True):
        for path in (Path(folder, name) for name in names):
            with path.open("rb") as file:
                found[str(path.relative_to(data))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def is_open(server: PostgresServer) -> bool:
    return server.is_open


def used_bytes(*roots: Path) -> int:
    files = (path for root in roots for path in root.rglob("*") if path.is_file())
    return sum(path.lstat().st_blocks * 512 for path in files)


@pytest.mark.slow
@pytest.mark.parametrize("major", [17, 18])
def test_every_link_restores_to_what_the_source_held_when_it_was_taken(
    major: int,
    chain_of: Callable[[int], CommittedChain],
    place: Path,
    start_restored: StartRestored,
) -> None:
    chain = chain_of(major)
    for number in (1, 2):
        data = new_data(place, f"link-{number}")
        outcome = restore(chain.site.services(), chain.request(data, number))
        assert outcome.chain == chain.labels[: number + 1]
        assert outcome.fetched_bytes > 1_000_000
        # pg_verifybackup ignores neither a wrong checksum nor a file too many.
        assert verify_with_postgres(chain.source.programs, data, "--ignore=tablespace_map") == ""
        assert b"INCREMENTAL" not in (data / "backup_label").read_bytes()
        assert not [*data.parent.rglob("INCREMENTAL.*")]
        assert used_bytes(data.parent) <= 1.05 * (outcome.bytes + outcome.files * 4096)
        server = start_restored(data, chain.source)
        wait_until(partial(is_open, server), OPEN_LIMIT_S, "the copy is open")
        assert dump_all(server) == chain.links[number].dump


def test_r26_two_restores_of_one_chain_at_once_are_the_same(
    committed_chain: CommittedChain, place: Path
) -> None:
    targets = [new_data(place, name) for name in ("one", "two")]
    with ThreadPoolExecutor(2) as executor:
        list(executor.map(lambda data: restored(committed_chain, data), targets))
    one, two = map(contents, targets)
    assert one.pop("tablespace_map") != two.pop("tablespace_map")
    assert one == two
    assert len(one) > 900


def test_a_dry_run_tells_the_chain(committed_chain: CommittedChain, place: Path) -> None:
    target = place / "data"
    arguments = ["restore", CLUSTER, str(target), "--dry-run", "--json"]
    outside = committed_chain.source.data.parent.parent / "outside"
    done = committed_chain.site.pgkeep(*arguments, "-T", f"{outside}={place / 'elsewhere'}")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["chain"] == list(committed_chain.labels)
    assert f"it is restored from the chain {', '.join(committed_chain.labels)}" in plan["reasons"]
    assert list(place.iterdir()) == []


def test_our_manifest_is_written_as_postgresql_writes_it(committed_chain: CommittedChain) -> None:
    for link in committed_chain.links:
        raw = plain_object(committed_chain.site, link.ref, layout.BACKUP_MANIFEST)
        manifest = parse(raw)
        assert b"".join(manifest_chunks(manifest, manifest.files.items())) == raw


def test_extracted_files_are_those_of_a_restore(
    committed_chain: CommittedChain, place: Path
) -> None:
    whole = contents(restored(committed_chain, new_data(place, "restored")))
    patterns = ["base/5/1*", "global", "pg_tblspc", "PG_VERSION"]
    target = place / "some"
    done = committed_chain.site.pgkeep("extract", CLUSTER, "--to", str(target), "--json", *patterns)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    some = contents(target)
    assert said["chain"] == list(committed_chain.labels)
    assert {file["path"] for file in said["files"]} - some.keys() == {"global/pg_control"}
    assert not startable(target)
    assert some.pop(CONTROL_NAME.decode()) == whole["global/pg_control"]
    assert some.items() < whole.items()
    assert {path.split("/")[0] for path in some} == {"base", "global", "pg_tblspc", "PG_VERSION"}
    assert len({path.split("/")[1] for path in some if path.startswith("pg_tblspc")}) == 2
    assert not (target / "pg_wal").exists()


def test_an_extract_that_finds_nothing_or_no_room_for_itself_writes_nothing(
    committed_chain: CommittedChain, place: Path
) -> None:
    services, target = committed_chain.site.services(), place / "some"

    def wanted(*patterns: bytes) -> ExtractRequest:
        return ExtractRequest(cluster_name(CLUSTER), None, target, patterns)

    with pytest.raises(NothingToExtract, match="base/5/99999"):
        extract(services, wanted(b"PG_VERSION", b"base/5/99999*"))
    assert not target.exists()
    done = committed_chain.site.pgkeep("extract", CLUSTER, "--to", str(target), "../etc/passwd")
    assert done.returncode == 2
    extract(services, wanted(b"PG_VERSION"))
    with pytest.raises(TargetNotEmpty):
        extract(services, wanted(b"PG_VERSION"))
    assert [path.name for path in target.iterdir()] == ["PG_VERSION"]


def test_c02_a_recovery_does_without_backups_whose_chain_is_broken(
    committed_chain: CommittedChain, place: Path
) -> None:
    chain = committed_chain.copied(place / "copy")
    services, name = chain.site.services(), cluster_name(CLUSTER)
    known = read_backups(services, name, None)
    assert [item.label for item in known.candidates] == list(chain.labels)
    assert known.refused == ()
    sizes = [link.document.stored_size for link in chain.links]
    assert [item.stored_bytes for item in known.candidates] == [
        sum(sizes[:end]) for end in (1, 2, 3)
    ]

    full, middle, last = chain.labels
    services.store.delete(chain.links[1].ref.document)
    known = read_backups(services, name, None)
    assert [item.label for item in known.candidates] == [full]
    assert known.refused == (f"backup {last} does not count: {last} needs {middle}, which is gone",)
    with pytest.raises(ChainBroken, match=f"needs {middle}"):
        read_backups(services, name, last)
    with pytest.raises(BackupNotFound):
        read_backups(services, name, middle)


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, "latest"])
def test_a_drill_of_an_incremental_backup_proves_its_chain_and_the_wal_behind_it(
    committed_chain: CommittedChain, place: Path, target: str | None
) -> None:
    site = committed_chain.copied(place / "copy").site
    report = drill(site.services(), site.cluster, DrillRequest(target=target))
    assert report.verdict == "proven", report.reason
    assert report.chain == committed_chain.labels
    if target is not None:
        assert report.reached_lsn is not None
        assert report.reached_lsn > committed_chain.links[-1].document.stop_lsn
    older = report.model_dump_json(exclude={"chain"})
    assert DrillReport.model_validate_json(older).chain == ()
