"""What an incremental backup may build on, or why a full one must be taken: pure rules.

Reasons have stable codes: a fleet can be asked how often each of them costs a full backup.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from shared.domain.lsn import Lsn

# UPLOAD_MANIFEST and WAL summaries came with it.
FIRST_MAJOR: Final = 17
_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class ParentCandidate:
    """A committed backup; `suspect`, `verified` and `chain_fault` speak of its whole chain.

    `verified` None means that nobody has looked yet.
    """

    label: str
    depth: int
    timeline: int
    start_lsn: Lsn
    system_identifier: str
    major: int
    block_size: int
    data_checksums: bool
    suspect: bool = False
    verified: bool | None = None
    chain_fault: str | None = None


@dataclass(frozen=True, slots=True)
class WalSummaries:
    """What the server's summarizer has: ranges [start, end) of its current timeline."""

    enabled: bool
    ranges: Sequence[tuple[Lsn, Lsn]] = ()

    def unbroken_since(self, position: Lsn) -> bool:
        """Whether none is missing from `position` to the newest one.

        What the summarizer has not come to yet is not missing: the server waits for it.
        """
        reached = position
        for start, end in sorted(self.ranges):
            if end <= reached:
                continue
            if start > reached:
                return False
            reached = end
        return True


@dataclass(frozen=True, slots=True)
class ServerState:
    """The server that is about to be read."""

    system_identifier: str
    major: int
    timeline: int
    block_size: int
    data_checksums: bool
    summaries: WalSummaries


@dataclass(frozen=True, slots=True)
class NoParent:
    """Why no incremental backup can be taken."""

    code: str
    reason: str


def choose_parent(
    candidates: Iterable[ParentCandidate],
    server: ServerState,
    *,
    chain_limit: int,
    prefer: Literal["verified", "newest"],
) -> ParentCandidate | NoParent:
    """`candidates` come newest first and are looked at only as far as needed.

    With `prefer` "verified", the newest that was verified; where none was, the newest. When none
    will do, the reason of the newest one is the answer's code.
    """
    unready = _unready(server)
    if unready is not None:
        return unready
    unverified: ParentCandidate | None = None
    refused: list[NoParent] = []
    for candidate in candidates:
        refusal = _refusal(candidate, server, chain_limit)
        if refusal is not None:
            refused.append(refusal)
        elif prefer == "newest" or candidate.verified:
            return candidate
        elif unverified is None:
            unverified = candidate
    return unverified or _together(refused)


def _unready(server: ServerState) -> NoParent | None:
    if server.major < FIRST_MAJOR:
        return NoParent(
            "version-without-incrementals",
            f"PostgreSQL {server.major} takes full backups only; {FIRST_MAJOR} is the first "
            "that takes incremental ones",
        )
    if not server.summaries.enabled:
        return NoParent("wal-summaries-off", "summarize_wal is off on the server")
    return None


def _refusal(candidate: ParentCandidate, server: ServerState, chain_limit: int) -> NoParent | None:
    for code, holds, reason in _rules(candidate, server, chain_limit):
        if holds:
            return NoParent(code, f"backup {candidate.label} {reason}")
    return None


def _rules(
    candidate: ParentCandidate, server: ServerState, chain_limit: int
) -> Iterable[tuple[str, bool, str]]:
    """Code, whether it speaks against the candidate, and the words for it."""
    mine = (candidate.system_identifier, candidate.major)
    theirs = (server.system_identifier, server.major)
    yield "other-system", mine != theirs, "is of another system or major version"
    yield "chain-broken", candidate.chain_fault is not None, f"{candidate.chain_fault}"
    yield (
        "parent-suspect",
        candidate.suspect,
        "holds pages that the server found broken, or builds on such",
    )
    failed = candidate.verified is False
    yield "verification-failed", failed, "or one that it builds on failed its verification"
    # A summary of the timeline that was left may hold truncations that the server never replayed:
    # blocks changed before them are then missing from the backup, without a word (decision 0018).
    switched = candidate.timeline != server.timeline
    now = f"is of timeline {candidate.timeline}, the server is on {server.timeline}"
    yield "timeline-switched", switched, now
    changed = candidate.block_size != server.block_size
    changed |= candidate.data_checksums != server.data_checksums
    yield "checksums-changed", changed, "has another page-checksum setting or block size"
    yield "chain-limit", candidate.depth >= chain_limit, f"ends a chain of {chain_limit} links"
    missing = not server.summaries.unbroken_since(candidate.start_lsn)
    yield (
        "wal-summaries-missing",
        missing,
        f"starts at {candidate.start_lsn}; WAL summaries since then are missing",
    )


def _together(refused: Sequence[NoParent]) -> NoParent:
    if not refused:
        return NoParent("no-backup", "there is no backup to build on yet")
    shown = [refusal.reason for refusal in refused[:_SHOWN]]
    if len(refused) > _SHOWN:
        shown.append(f"and {len(refused) - _SHOWN} older ones will not do either")
    return NoParent(refused[0].code, "; ".join(shown))
