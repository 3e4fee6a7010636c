"""What somebody can write who holds every key: parts that open and documents that authenticate.

A verification must find such a backup out by what it says, for no seal and no signature is broken.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shared.repository.backups import StoredBackup, read_backup
from shared.repository.blob_store import BlobName
from shared.repository.documents import BackupLink, SealedObject
from shared.repository.layout import BackupRef
from shared.repository.object_aad import aad
from shared.repository.signatures import sign_document
from tests.harness.worker_services import Site
from worker.commands.cluster_identity import signer_of
from worker.commands.opened_backup import OpenedBackup, open_backup
from worker.pipeline.sealed_memory import seal

Change = Callable[[bytes], bytes]


def stored_backup(site: Site, ref: BackupRef) -> StoredBackup:
    services = site.services()
    return read_backup(services.store, ref, services.pinned)


def blob_file(site: Site, name: BlobName) -> Path:
    """Where a directory repository keeps the blob."""
    return site.repository / name.container / name.path


def plain_object(site: Site, ref: BackupRef, name: str) -> bytes:
    opened = open_backup(site.services(), stored_backup(site, ref))
    with ThreadPoolExecutor(2) as executor:
        return b"".join(opened.object_chunks(name, executor))


def reseal(
    site: Site, ref: BackupRef, changes: Mapping[str, Change] | None = None, **document: Any
) -> StoredBackup:
    """Change sealed objects by name, and fields of the document; seal and sign them anew."""
    services = site.services()
    opened = open_backup(services, stored_backup(site, ref))
    objects = [
        _resealed(site, opened, item, (changes or {}).get(item.name))
        for item in opened.stored.document.objects
    ]
    changed = opened.stored.document.model_copy(update={"objects": tuple(objects), **document})
    blob_file(site, ref.document).write_bytes(sign_document(changed, signer_of(services)))
    return stored_backup(site, ref)


def adopt(site: Site, child: BackupRef, parent: StoredBackup) -> StoredBackup:
    """Let the child's document name the parent's as it is now."""
    link = BackupLink(label=parent.ref.label.text, digest=parent.digest)
    return reseal(site, child, parent=link)


def _resealed(
    site: Site, backup: OpenedBackup, item: SealedObject, change: Change | None
) -> SealedObject:
    if change is None:
        return item
    document, ref = backup.stored.document, backup.stored.ref
    name = ref.object_name(item.name)
    bound = aad(document.cluster_uuid, document.system_identifier, item.kid, name)
    with ThreadPoolExecutor(2) as executor:
        plain = change(b"".join(backup.object_chunks(item.name, executor)))
        key = (backup.keys[item.kid].reveal(), bound)
        stored = seal(plain, key, random=os.urandom, compression=executor, level=1)
    blob_file(site, ref.blob(item.name)).write_bytes(stored)
    return item.model_copy(
        update={
            "stored_size": len(stored),
            "sha256": hashlib.sha256(stored).hexdigest(),
            "plain_size": len(plain),
            "plain_sha256": hashlib.sha256(plain).hexdigest(),
        }
    )
