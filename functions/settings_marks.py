"""Whether the settings' document was written anew, without reading it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from shared import adapters
from shared.azure_storage.patience import RetryBudget
from shared.errors import BlobNotFound, SettingsInvalid
from shared.settings import CONFIG_VARIABLE, is_url

# Asked between two things to do, which shall not wait for storage that is away.
_IMPATIENT = RetryBudget(total_s=2.0)


def settings_mark(variables: Mapping[str, str]) -> Callable[[], str]:
    """Tells the mark of the document that PGKEEP_CONFIG names: a blob's ETag, or what a file system
    knows of a file. Without a document it stays the same.

    Raises SettingsInvalid; what is returned, too, and what a store raises.
    """
    source = variables.get(CONFIG_VARIABLE)
    if source is None:
        return lambda: ""
    return _blob_mark(source, variables) if is_url(source) else lambda: _file_mark(Path(source))


def _blob_mark(url: str, variables: Mapping[str, str]) -> Callable[[], str]:
    """One client for all questions: it keeps its connection and its token."""
    store, name = adapters.settings_blob(url, variables, retry=_IMPATIENT)

    def mark() -> str:
        try:
            return store.head(name).etag
        except BlobNotFound as error:
            raise SettingsInvalid(f"cannot read {url}: {error}") from None

    return mark


def _file_mark(path: Path) -> str:
    """Whoever replaces a file changes its inode, whoever writes into it its time or its size."""
    try:
        seen = path.stat()
    except OSError as error:
        raise SettingsInvalid(f"cannot read {path}: {error}") from None
    return f"{seen.st_ino}-{seen.st_size}-{seen.st_mtime_ns}"
