"""Findings: what is wrong, since when, and how bad; opened once, closed when it is gone.

Whoever looks settles a scope: what it finds is what is open of that scope. Scopes never close one
another's findings.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from shared.domain.cluster import ClusterName
from shared.domain.finding_rules import RULES, FindingCode, FindingScope, Severity

# Stands for the cluster in findings about the whole repository: no cluster can have this name.
REPOSITORY: Final = ClusterName("_repository")


@dataclass(frozen=True, slots=True)
class Finding:
    """`object` tells findings of one code apart; `fact` may change while the finding stays open.

    `evidence` are names and numbers that a person or an alert needs beside the sentence.
    """

    code: FindingCode
    object: str
    since: datetime
    fact: str
    evidence: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def action(self) -> str:
        """What to do next, one sentence."""
        return RULES[self.code].action

    @property
    def severity(self) -> Severity:
        return RULES[self.code].severity

    @property
    def scope(self) -> FindingScope:
        return RULES[self.code].scope

    @property
    def key(self) -> tuple[str, str]:
        return self.code.value, self.object


@dataclass(frozen=True, slots=True)
class FindingChanges:
    """`opened` and `closed` are news; `kept` were open, and say today's fact."""

    opened: tuple[Finding, ...] = ()
    kept: tuple[Finding, ...] = ()
    closed: tuple[Finding, ...] = ()


def fold_findings(known_open: Iterable[Finding], found: Iterable[Finding]) -> FindingChanges:
    """A finding stays the same as long as code and object do, and keeps its first `since`."""
    before = {finding.key: finding for finding in known_open}
    after = {finding.key: finding for finding in found}
    return FindingChanges(
        opened=tuple(one for key, one in after.items() if key not in before),
        kept=tuple(
            replace(one, since=before[key].since) for key, one in after.items() if key in before
        ),
        closed=tuple(one for key, one in before.items() if key not in after),
    )
