"""Tablespaces through backup and restore: two outside with odd names, and one in place."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg import sql

from local.postgres_initdb import ClusterOptions
from local.postgres_server import PostgresServer
from local.unprivileged import hand_over, server_account
from shared.domain.not_restorable import NotRestorable
from tests.harness.postgres_clusters import MakeCluster
from tests.harness.worker_services import (
    Site,
    StartRestored,
    dump,
    make_site,
    verify_with_postgres,
)
from worker.commands.drill import DrillRequest, drill
from worker.commands.verify import verify
from worker.keys.generate import KeySet
from worker.pipeline.file_writer import TargetNotEmpty

pytestmark = [pytest.mark.integration, pytest.mark.postgres]

# PostgreSQL 15 leaves tablespaces in place out of a backup with a map ("testing use only", xlog.c).
IN_PLACE_SINCE = 16
ODD_NAMES = ("fast = disk", "dünne Scheibe")


@dataclass(frozen=True)
class Spread:
    """A cluster whose tables lie in three tablespaces, backed up; `outside` are their places."""

    source: PostgresServer
    site: Site
    outside: tuple[Path, Path]

    @property
    def mapping(self) -> dict[str, str]:
        """To places beside the restored data directory, with the same odd names."""
        return {str(path): str(self.site.folder / "new" / path.name) for path in self.outside}


@pytest.fixture
def spread(make_cluster: MakeCluster, key_set: KeySet, place: Path) -> Spread:
    # Without this setting not even the source itself would recover from a crash.
    source = make_cluster(ClusterOptions(settings={"allow_in_place_tablespaces": "on"}))
    outside = (place / ODD_NAMES[0], place / ODD_NAMES[1])
    with source.connect() as connection:
        places = {"one": str(outside[0]), "two": str(outside[1])}
        if source.major >= IN_PLACE_SINCE:
            places["inside"] = ""
        for name, location in places.items():
            if location:
                make_for_postgres(Path(location))
            connection.execute(
                sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(sql.Identifier(name), location)
            )
            connection.execute(
                sql.SQL(
                    "CREATE TABLE {} TABLESPACE {} AS SELECT generate_series(1, 5000) n"
                ).format(sql.Identifier(f"in_{name}"), sql.Identifier(name))
            )
    site = make_site(place / "site", key_set, source, database="postgres")
    site.backup()
    return Spread(source, site, outside)


def make_for_postgres(directory: Path) -> None:
    directory.mkdir(0o700)
    hand_over(directory, server_account())


def snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file, by path."""
    return {
        str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_b14_a_mapped_restore_never_touches_the_source_and_equals_it(
    spread: Spread, start_restored: StartRestored
) -> None:
    site, source = spread.site, spread.source
    assert verify(site.services(), site.newest()).passed
    before = [snapshot(path) for path in spread.outside]
    data = site.folder / "restored" / "data"
    site.restore(data, tablespace_mapping=spread.mapping)
    assert verify_with_postgres(source.programs, data, "--ignore=tablespace_map") == ""
    restored = start_restored(data, source)
    # A start replays tablespace_map: the links must still lead to the new places afterwards.
    links = {link.readlink() for link in (data / "pg_tblspc").iterdir() if link.is_symlink()}
    assert links == {Path(new) for new in spread.mapping.values()}
    assert dump(restored, "postgres") == dump(source, "postgres")
    restored.query("CREATE TABLE written_later TABLESPACE one AS SELECT generate_series(1, 9999)")
    restored.query("CHECKPOINT")
    assert [snapshot(path) for path in spread.outside] == before


def test_a_restore_to_the_old_places_is_refused_while_they_hold_data(spread: Spread) -> None:
    data = spread.site.folder / "restored" / "data"
    with pytest.raises(TargetNotEmpty, match="is not empty"):
        spread.site.restore(data)
    assert not data.exists()


def test_a_restore_to_the_old_places_keeps_every_byte_of_the_map(
    spread: Spread, start_restored: StartRestored
) -> None:
    expected = dump(spread.source, "postgres")
    spread.source.stop()
    for path in spread.outside:
        shutil.rmtree(path)
    data = spread.site.folder / "restored" / "data"
    spread.site.restore(data)
    assert verify_with_postgres(spread.source.programs, data) == ""
    assert dump(start_restored(data, spread.source), "postgres") == expected


def test_r10_every_bad_mapping_is_told_before_anything_is_written(spread: Spread) -> None:
    data = spread.site.folder / "restored" / "data"
    first, second = map(str, spread.outside)
    mapping = {first: "relative", second: str(data / "inside"), "/not/a/tablespace": "/tmp/x"}
    with pytest.raises(NotRestorable) as refused:
        spread.site.restore(data, tablespace_mapping=mapping)
    for reason in ("relative is not absolute", "overlap", "unknown tablespace /not/a/tablespace"):
        assert reason in refused.value.fact
    assert not data.parent.exists()


def test_t18_a_drill_leaves_the_tablespaces_of_the_source_alone(spread: Spread) -> None:
    before = [snapshot(path) for path in spread.outside]
    site = spread.site
    report = drill(site.services(), site.cluster, DrillRequest())
    assert report.verdict == "proven", report.reason
    assert [snapshot(path) for path in spread.outside] == before
    assert spread.source.query("SELECT count(*) FROM in_one") == [(5000,)]
