"""Restore an incremental backup without pgkeep: its chain, put together by pg_combinebackup.

    python3 emergency_chain.py --repository ./downloaded --cluster orders \
        --label 20261122T090000Z-I-k3x7 --key escrow.pem --target /srv/restored \
        --programs /usr/lib/postgresql/17/bin

Needs emergency_restore.py beside it; emergency-restore.md says what to download. Writes to --target
and the directories of --tablespace, and until it is done to TARGET.links; all of them must be
absent or empty. There must be room for the result twice, and for the largest incremental.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import emergency_restore as single

PROGRAM = "pg_combinebackup"
HARD_LINKS_SINCE = 18  # the first version that knows --link
TABLESPACE_MAP = "tablespace_map"


@dataclass(frozen=True)
class Copy:
    """A data directory, and by OID the directories of those tablespaces that lie outside of it."""

    data: Path
    tablespaces: Mapping[str, Path]

    @classmethod
    def below(cls, folder: Path, backup: single.Backup) -> "Copy":
        outside = [str(item["oid"]) for item in backup.tablespaces if not item.get("in_place")]
        return cls(folder / "data", {oid: folder / oid for oid in outside})

    def homes(self, backup: single.Backup) -> dict[str, Path]:
        moved = {oid: str(path) for oid, path in self.tablespaces.items()}
        return single.archive_homes(backup, self.data, moved)


def main() -> None:
    parser = single.argument_parser("Restore an incremental backup without pgkeep.")
    parser.add_argument("--programs", metavar="DIR", help=f"where {PROGRAM} is, unless on the PATH")
    arguments = parser.parse_args()
    os.umask(0o077)
    try:
        restore(arguments)
    except (single.Stop, OSError, ValueError) as problem:
        sys.exit(f"\nSTOPPED: {problem}")


def restore(arguments: argparse.Namespace) -> None:
    target = Path(arguments.target).absolute()
    single.say("1/3 Reading backup.json of every link")
    chain = read_chain(Path(arguments.repository), arguments.cluster, arguments.label)
    single.say("2/3 Looking at the blobs, keys, programs and directories to fill")
    for link in chain:
        single.check_blobs(link)
    program = find_program(arguments.programs, chain[-1])
    homes = single.archive_homes(chain[-1], target, dict(arguments.tablespace))
    work = make_work_folder(target)
    keys = single.read_keys(chain[-1], arguments)
    for link in chain:
        keys.data_key(link.document["kid"])
    single.say("3/3 Restoring link by link")
    combine_all(chain, work, homes, keys, program)
    shutil.rmtree(work)
    single.say(single.next_steps(chain[-1].document, target))


def read_chain(root: Path, cluster: str, label: str) -> list[single.Backup]:
    """The full backup first. Every parent must be the very one that its child was made from."""
    chain = [single.open_backup(root, cluster, label)]
    while parent := chain[0].document.get("parent"):
        older = single.open_backup(root, cluster, parent["label"])
        content = (older.folder / "backup.json").read_bytes()
        if hashlib.sha256(content).hexdigest() != parent["digest"]:
            raise single.Stop(
                f"{older.folder / 'backup.json'} was replaced: its digest is another."
            )
        chain.insert(0, older)
    if len(chain) == 1:
        raise single.Stop(f"{label} is a full backup: run emergency_restore.py instead.")
    single.say("    " + " → ".join(link.document["label"] for link in chain))
    return chain


def find_program(folder: str | None, backup: single.Backup) -> list[str]:
    """pg_combinebackup of the backup's major version, and the options that suit it."""
    major = backup.document["postgres"]["version_num"] // 10000
    found = shutil.which(PROGRAM, path=folder)
    if found is None:
        raise single.Stop(
            f"There is no {PROGRAM} here. Install PostgreSQL {major}; see --programs."
        )
    command = [found, "--version"]
    said = subprocess.run(command, check=False, capture_output=True, text=True).stdout  # noqa: S603
    if not re.search(rf" {major}\D", said):
        raise single.Stop(f"{found} is {said.strip()!r}; the backup is of PostgreSQL {major}.")
    return [found, *(["--link"] if major >= HARD_LINKS_SINCE else [])]


def make_work_folder(target: Path) -> Path:
    """Beside the target, so that the result can be renamed to it: it appears when it is whole."""
    if target.is_mount():
        raise single.Stop(f"{target} is a mount point: choose a directory below it.")
    work = target.with_name(f"{target.name}.links")
    if work.exists() and any(work.iterdir()):
        raise single.Stop(f"{work} is left over from a run before. Remove it.")
    work.mkdir(parents=True, exist_ok=True)
    return work


def combine_all(
    chain: list[single.Backup],
    work: Path,
    homes: dict[str, Path],
    keys: single.Keys,
    program: list[str],
) -> None:
    """One link at a time: combining all at once may bring back blocks that a link had cut off."""
    target = homes["pgdata"]
    whole = restored(chain[0], work / "full", keys)
    for number, link in enumerate(chain[1:], start=1):
        incremental = restored(link, work / f"link-{number}", keys)
        result = Copy.below(work / f"combined-{number}", link)
        if link is chain[-1]:
            result = Copy(result.data, {oid: homes[oid] for oid in result.tablespaces})
            # Tablespaces may go to other file systems, where a hard link cannot reach.
            program = program[:1] if result.tablespaces else program
        combine(program, whole, incremental, result)
        for folder in (whole.data.parent, incremental.data.parent):
            shutil.rmtree(folder)
        whole = result
    os.sync()
    whole.data.rename(target)


def restored(backup: single.Backup, folder: Path, keys: single.Keys) -> Copy:
    """As pg_basebackup would have left it: with links to tablespaces, but without their map."""
    single.say(f"  {backup.document['label']}")
    copy = Copy.below(folder, backup)
    single.fill(backup, copy.homes(backup), keys)
    (copy.data / TABLESPACE_MAP).unlink(missing_ok=True)
    for path in (copy.data, *copy.tablespaces.values()):
        forget_changed_maps(path)
    return copy


def forget_changed_maps(folder: Path) -> None:
    """PostgreSQL before 17.11 and 18.5 may leave out that a row of a page is not visible any more.

    Its visibility maps are then wrong, and so are results. Without one, the next VACUUM makes it.
    """
    for path in folder.rglob("INCREMENTAL.*_vm*"):
        path.unlink()


def combine(program: list[str], older: Copy, newer: Copy, result: Copy) -> None:
    command = [*program, str(older.data), str(newer.data), "--no-sync", f"--output={result.data}"]
    for oid, path in newer.tablespaces.items():
        old, new = (escaped(place) for place in (path, result.tablespaces[oid]))
        command.append(f"--tablespace-mapping={old}={new}")
    single.say(f"    {PROGRAM}")
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise single.Stop(f"{PROGRAM} failed: {done.stderr.strip()}")


def escaped(path: Path) -> str:
    return str(path).replace("=", "\\=")


if __name__ == "__main__":
    main()
