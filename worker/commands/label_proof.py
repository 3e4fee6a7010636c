"""PostgreSQL's backup_label against the document: where a backup starts, and on what it builds."""

from shared.errors import Corrupt
from shared.repository.documents import BackupDocument
from worker.postgres.backup_label import BackupStart, parse_backup_label


class BackupLabelDiffers(Corrupt):
    """A backup_label that names another start or another parent than the document."""

    code = "backup-label-differs"
    hint = "Parts of two backups were mixed: look at who can write to the repository."


def check_label(raw: bytes, document: BackupDocument, parent: BackupDocument | None) -> None:
    """`parent` None: there is none, or it is not known.

    Raises BackupLabelDiffers, BackupLabelFileInvalid.
    """
    label, start = parse_backup_label(raw), _start(document)
    if label.start != start:
        raise BackupLabelDiffers(f"backup_label starts at {label.start}, the document at {start}")
    if (label.parent is None) != (document.parent is None):
        raise BackupLabelDiffers(f"backup_label is not that of one that is {document.kind}")
    if parent is not None and label.parent != _start(parent):
        raise BackupLabelDiffers(
            f"backup_label builds on {label.parent}, parent {parent.label} starts at "
            f"{_start(parent)}"
        )


def _start(document: BackupDocument) -> BackupStart:
    return BackupStart(document.start_lsn, document.timeline)
