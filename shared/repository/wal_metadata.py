"""What stands in clear beside a sealed WAL blob: enough to plan a recovery from listings alone.

A writer cannot open what an earlier session sealed, so the digest of the plaintext decides whether
a segment that comes again is the same. Nothing here is authenticated: the key, the AAD and
PostgreSQL's own checks decide what is believed; metadata only says where to look.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, unquote

from shared.domain.lsn import Lsn
from shared.domain.restore_point import RestorePoint
from shared.errors import PgkeepError
from shared.repository.blob_store import Metadata

_KID: Final = re.compile(r"k[a-z2-7]{26}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TIME: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
# Azure allows 8 KiB of metadata; more restore points than fit are found by nobody but PostgreSQL.
_POINTS_LENGTH: Final = 2048


@dataclass(frozen=True, slots=True)
class WalMetadata:
    """`sha256` and `size` are those of the plaintext; commit times are the server's, in UTC.

    `first_commit` and `last_commit` are those of the first and last commit or abort record that
    begins in the blob, None when there is none.
    """

    kid: str
    sha256: str
    size: int
    first_commit: datetime | None = None
    last_commit: datetime | None = None
    points: tuple[RestorePoint, ...] = ()

    def to_blob(self) -> dict[str, str]:
        """Names and values that BlobStore.create takes."""
        known = {"kid": self.kid, "sha256": self.sha256, "size": str(self.size)}
        if self.first_commit and self.last_commit:
            known["first_commit"] = _written(self.first_commit)
            known["last_commit"] = _written(self.last_commit)
        points = _joined(self.points)
        return {**known, "points": points} if points else known

    @classmethod
    def from_blob(cls, metadata: Metadata) -> "WalMetadata | None":
        """None for a blob that lost its metadata, or whose metadata makes no sense."""
        found = {name.lower(): value for name, value in metadata.items()}
        try:
            kid, sha256, size = found["kid"], found["sha256"], int(found["size"])
            first, last = found.get("first_commit"), found.get("last_commit")
            points = tuple(map(_point, filter(None, found.get("points", "").split(","))))
            if not _KID.fullmatch(kid) or not _SHA256.fullmatch(sha256) or size < 0:
                return None
            return cls(kid, sha256, size, _read(first), _read(last), points)
        except (KeyError, ValueError, PgkeepError):
            return None


def _joined(points: tuple[RestorePoint, ...]) -> str:
    text = ""
    for point in points:
        one = f"{quote(point.name, safe='')}@{point.lsn}@{_written(point.time)}"
        if len(text) + len(one) >= _POINTS_LENGTH:
            break
        text = f"{text},{one}" if text else one
    return text


def _point(text: str) -> RestorePoint:
    name, lsn, time = text.split("@")
    return RestorePoint(Lsn.parse(lsn), unquote(name), _parsed(time))


def _written(time: datetime) -> str:
    return time.astimezone(UTC).strftime(_TIME)


def _read(text: str | None) -> datetime | None:
    return None if text is None else _parsed(text)


def _parsed(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
