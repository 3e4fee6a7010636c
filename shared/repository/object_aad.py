"""The associated data that binds a sealed object to its cluster, key and name.

Never stored: a reader rebuilds it from the path and the key record, so that a blob which was
renamed, moved or swapped does not open (20-artefact-format.md §2).
"""

_MAGIC = "pgkeep1"


def aad(cluster_uuid: str, system_identifier: str, kid: str, object_name: str) -> bytes:
    """Five lines of UTF-8, each ended by a line feed.

    `system_identifier` is decimal; `object_name` is the logical name, without container of the
    storage account or cluster: `full/<label>/base.pgdata.0000`. Raises ValueError for an empty
    part or a line feed inside one: two different inputs must never give the same bytes.
    """
    lines = (_MAGIC, cluster_uuid, system_identifier, kid, object_name)
    if any(not line or "\n" in line for line in lines):
        raise ValueError("every part of the associated data is one line that is not empty")
    return "".join(f"{line}\n" for line in lines).encode()
