"""`--from-secondary`: the same verbs, reading the copy in the second region.

What they read is the repository as it was at the Last Sync Time, strictly read-only; no lease is
taken there. Their signed reports go home, to the primary, as long as that answers; else they wait
on this host, in folders like those of the repository, until somebody copies them.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from shared.domain.replication import CLOCK_MARGIN
from shared.errors import NoSecondary, PgkeepError, StorageDenied, Unavailable
from shared.event_log import log_event
from shared.repository import layout
from shared.repository.blob_store import NO_METADATA, BlobInfo, BlobName, BlobStore, Metadata
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.read_only_store import ReadOnlyStore
from worker.commands.services import Elsewhere, Services

T = TypeVar("T")

# Below `drill.scratch`.
UNSENT: Final = "unsent-reports"


def from_secondary(services: Services) -> Services:
    """Services that read there. Raises NoSecondary.

    When nobody tells the Last Sync Time all that is there is read, at the reader's risk: some of it
    may be incomplete.
    """
    if services.secondary is None:
        raise NoSecondary("the repository has no secondary that could be read")
    reached = _last_sync_time(services)
    as_of = None if reached is None else reached - CLOCK_MARGIN
    unsent = services.settings.drill.scratch / UNSENT
    log_event("secondary-read", last_sync_time=reached)
    return replace(
        services,
        store=ReadOnlyStore(services.secondary, as_of),
        elsewhere=Elsewhere(reached, ReportsHome(services.store, unsent)),
    )


def _last_sync_time(services: Services) -> datetime | None:
    if services.replication is None:
        return None
    try:
        return services.replication.read().last_sync_time
    except PgkeepError as error:
        level, fact = logging.WARNING, error.fact
        log_event("replication-unread", level=level, code=error.code, fact=fact)
        return None


class ReportsHome(ReadOnlyStore):
    """The primary, which takes reports as long as it answers; then `unsent` does.

    A region that is lost costs the patience of one request, not of each. Another report of the
    same name that waits here already is found here.
    """

    def __init__(self, home: BlobStore, unsent: Path) -> None:
        super().__init__(home)
        self._home = home
        self._unsent = unsent
        self._away = False

    def create(self, name: BlobName, data: bytes, *, metadata: Metadata = NO_METADATA) -> BlobInfo:
        def at_home() -> BlobInfo:
            return self._home.create(name, data, metadata=metadata)

        def here() -> BlobInfo:
            log_event("report-unsent", level=logging.WARNING, blob=name, folder=str(self._unsent))
            # As a drill makes its scratch: the account of its server passes through.
            self._unsent.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            store = DirectoryBlobStore(self._unsent)
            store.create_container(layout.EVIDENCE)
            return store.create(name, data, metadata=metadata)

        return self._at_home_or(at_home, here)

    def read(self, name: BlobName, *, limit: int) -> bytes:
        return self._at_home_or(
            lambda: self._home.read(name, limit=limit),
            lambda: DirectoryBlobStore(self._unsent).read(name, limit=limit),
        )

    def _at_home_or(self, at_home: Callable[[], T], here: Callable[[], T]) -> T:
        if not self._away:
            try:
                return at_home()
            except (Unavailable, StorageDenied) as error:
                self._away = True
                level, fact = logging.WARNING, error.fact
                log_event("primary-away", level=level, code=error.code, fact=fact)
        return here()
