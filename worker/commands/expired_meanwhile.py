"""When a backup expires while it is being read: to say that, and not that a blob is missing.

Whoever restores from a command line has no right to hold what it reads, and `expire` cannot know of
it. The signed tombstone tells apart afterwards what retention gave up and what was lost.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from shared.errors import BlobNotFound, Corrupt, NotFound, PgkeepError
from shared.repository.expiry_documents import Tombstone
from shared.repository.layout import BackupRef
from shared.repository.tombstones import tombstone_of
from worker.commands.services import Services


class BackupExpired(NotFound):
    """A run of `expire` deleted the backup, or one that it builds on, while it was being read."""

    code = "backup-expired"
    hint = (
        "Empty the target and choose another backup or instant: `pgkeep list`. Before a long "
        "restore put the label into `hold` of `[cluster.retention]`."
    )


@contextmanager
def told_if_expired(services: Services, chain: Sequence[BackupRef]) -> Iterator[None]:
    """Raises BackupExpired for what is missing or damaged within, if that is why."""
    try:
        yield
    except (NotFound, Corrupt) as error:
        stone = next(_expired(services, chain), None)
        if stone is None:
            raise
        fact = f"run {stone.run} of {stone.created_at:%F %TZ} deleted backup {stone.label}"
        raise BackupExpired(f"{fact}: {error.fact}") from None


def _expired(services: Services, chain: Sequence[BackupRef]) -> Iterator[Tombstone]:
    """Of those whose document is gone. That nobody can look now must not hide the first error."""
    with suppress(PgkeepError):
        for ref in chain:
            stone = tombstone_of(services.store, ref, services.pinned)
            if stone is not None and not _is_there(services, ref):
                yield stone


def _is_there(services: Services, ref: BackupRef) -> bool:
    try:
        services.store.head(ref.document)
    except BlobNotFound:
        return False
    return True
