"""`pgkeep extract`: single files of a backup, each composed from its chain as a restore would.

What it leaves is never a data directory that a server would start from: the control file, if it is
among the files, keeps another name.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname
from typing import Final

from shared.domain.cluster import ClusterName
from shared.domain.file_versions import PlannedFile
from shared.domain.path_patterns import matches, parse_pattern
from shared.domain.restore_plan import RestorePlan, plan_files
from shared.errors import NotFound
from shared.repository.backups import find_backup, read_backup
from shared.repository.chains import read_chain
from worker.commands.chain_labels import checked_label
from worker.commands.fetched_files import VolumeOpener, volume_opener, write_files
from worker.commands.file_owner import find_owner
from worker.commands.opened_chain import OpenedChain, open_chain
from worker.commands.services import Services
from worker.pipeline.disk_room import require_room
from worker.pipeline.file_writer import TargetTree, check_restorable_into
from worker.pipeline.in_order import map_in_order

CONTROL_NAME: Final = b"global/pg_control.extracted"
_TABLESPACES: Final = b"pg_tblspc"


class NothingToExtract(NotFound):
    """A pattern that fits no file of the backup."""

    code = "nothing-to-extract"
    hint = "Ask the source with pg_relation_filepath(); beyond 1 GiB, .1 and so on follow."


@dataclass(frozen=True, slots=True)
class ExtractRequest:
    """`label` None means the newest backup; `owner` None leaves the files to who runs this."""

    cluster: ClusterName
    label: str | None
    target: Path
    patterns: tuple[bytes, ...]
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class ExtractOutcome:
    """`chain` are the backups that may have been read, `fetched_bytes` so much of them."""

    label: str
    chain: tuple[str, ...]
    target: Path
    files: Sequence[PlannedFile]
    fetched_bytes: int

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


def extract(services: Services, request: ExtractRequest) -> ExtractOutcome:
    """Plan, then write below the target, which must be empty or new.

    Raises PathPatternInvalid, NothingToExtract, and before writing whatever a restore does.
    """
    patterns = [parse_pattern(pattern) for pattern in request.patterns]
    check_restorable_into(request.target)
    ref = find_backup(services.store, request.cluster, request.label)
    stored = read_backup(services.store, ref, services.pinned)
    chain = open_chain(services, read_chain(services.store, stored, services.pinned))
    with ThreadPoolExecutor(services.settings.worker.transfer_threads) as executor:
        volumes = volume_opener(chain)
        plan = _planned(chain, volumes, patterns, executor)
        require_room(request.target, plan.file_bytes)
        fetched = _written(services, request, plan, volumes, executor)
    return ExtractOutcome(plan.label, plan.chain, request.target, plan.files, fetched)


def _planned(
    chain: OpenedChain, volumes: VolumeOpener, patterns: Sequence[bytes], executor: Executor
) -> RestorePlan:
    indexes = chain.indexes(executor)
    checked_label(chain, indexes, volumes, executor)
    plan = plan_files(
        indexes,
        block_size=chain.block_size,
        only=lambda path: any(matches(pattern, path) for pattern in patterns),
    )
    for pattern in patterns:
        if not any(matches(pattern, file.path) for file in plan.files):
            raise NothingToExtract(f"backup {plan.label} has no file {pattern!r}")
    return plan


def _written(
    services: Services,
    request: ExtractRequest,
    plan: RestorePlan,
    volumes: VolumeOpener,
    executor: Executor,
) -> int:
    """Returns the stored bytes that were read."""
    folders = {folder for file in plan.files for folder in _folders_of(file.path)}
    places = [
        item for item in plan.tablespaces if _TABLESPACES + b"/" + item.oid.encode() in folders
    ]
    owner = find_owner(request.owner) if request.owner else None
    tree = TargetTree(request.target, places, owner)
    services.progress.phase("fetch+apply")
    try:
        directories = [item for item in plan.directories if item.path in folders]
        tree.prepare(directories, f"extracting from backup {plan.label}")
        fetched = write_files(services, executor, volumes, plan, tree, lambda _: None)
        for _ in map_in_order(executor, tree.flush, plan.files, depth=16):
            pass
        tree.finish(sync=True, control=CONTROL_NAME)
    finally:
        tree.close()
    return fetched


def _folders_of(path: bytes) -> Iterator[bytes]:
    while path := dirname(path):
        yield path
