"""A cluster: one PostgreSQL data directory, known by its system identifier."""

import re
from typing import NewType

from shared.errors import InvalidInput

ClusterName = NewType("ClusterName", str)

# RFC 1123 label: it is part of blob paths, queue messages and URLs.
CLUSTER_NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_NAME = re.compile(CLUSTER_NAME_PATTERN)


class ClusterNameInvalid(InvalidInput):
    """A text that cannot name a cluster."""

    code = "cluster-name-invalid"
    hint = "Use 1 to 63 lower-case letters, digits and inner hyphens."


def cluster_name(text: str) -> ClusterName:
    """Raises ClusterNameInvalid."""
    if not _NAME.fullmatch(text):
        raise ClusterNameInvalid(f"{text!r} cannot name a cluster")
    return ClusterName(text)
