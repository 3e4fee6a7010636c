"""Everything a drill looks at once the files are there: does it open, and is it what was saved?"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from shared.domain.drill import Check, CheckOutcome, DrillPhase, tables_check
from shared.errors import SettingsInvalid
from shared.settings import ClusterSettings
from worker.commands.drill_report import Findings
from worker.commands.instant_checks import ROW_COUNTS_SKIPPED, check_heartbeat, check_target
from worker.commands.replay import Replayed, ReplayPlace, replayed, started
from worker.commands.restore import PreparedRestore
from worker.commands.services import Services, Stopwatch
from worker.commands.source_facts import SourceFacts
from worker.postgres.instance import Instance, Opening, stop_cleanly, wait_until_open
from worker.postgres.programs import ControlData, read_control_data
from worker.postgres.restored_checks import (
    check_collations,
    check_page_checksums,
    check_relations,
    restored_tables,
)
from worker.postgres.validation_sql import Limits, check_validation_sql

_VALIDATION_ROLE = "pgkeep_validation"


@dataclass(frozen=True, slots=True)
class CopyUnderTest:
    """A restored data directory and what is known of it."""

    place: ReplayPlace
    prepared: PreparedRestore
    facts: SourceFacts
    cluster: ClusterSettings


def run_checks(
    services: Services, copy: CopyUnderTest, watch: Stopwatch, findings: Findings
) -> None:
    """Open the copy and check it, in the order that worker.postgres.restored_checks demands.

    Adds to `findings` as it goes, so that what was seen stays when a later step raises. Raises
    InstanceNotStarted, InstanceLacksLibrary, InstanceStarved, InstanceTimeout, and whatever else
    asking the copy may raise; of the storage, WalNotRestored alone.
    """
    services.progress.phase("recovery")
    timeout, checks = services.settings.drill.start_timeout_s, findings.checks
    with _opened(services, copy) as (instance, control, end):
        opening = wait_until_open(instance, copy.cluster.database, timeout=timeout)
        if end is not None:
            findings.replayed = end
            opening = replace(opening, consistent_s=end.consistent_s, recovered_s=end.ended_s)
        watch.lap(DrillPhase.RECOVERY)
        _split(watch, opening, replayed=end is not None)
        opened = f"consistent after {opening.consistent_s:.1f} s, read-write after "
        detail = f"{opened}{opening.recovered_s:.1f} s"
        checks.append(Check("opens", CheckOutcome.PASSED, detail, round(opening.first_query_s, 3)))
        services.progress.phase("checks")
        _look_at_the_instant(services, copy, instance, findings)
        _look_inside(services, copy, instance, findings)
        stop_cleanly(instance)
        checks.append(check_page_checksums(instance, control, timeout=timeout))
    watch.lap(DrillPhase.CHECKS)


@contextmanager
def _opened(
    services: Services, copy: CopyUnderTest
) -> Iterator[tuple[Instance, ControlData, Replayed | None]]:
    """Starting, when the backup has all it needs; or at the end of its replay."""
    place = copy.place
    if copy.prepared.planned is not None:
        with replayed(services, place, copy.prepared) as opened:
            yield opened
        return
    control = read_control_data(place.programs, place.scratch.data, account=place.account)
    with started(place, control) as instance:
        yield instance, control, None


def _look_at_the_instant(
    services: Services, copy: CopyUnderTest, instance: Instance, findings: Findings
) -> None:
    planned, end = copy.prepared.planned, findings.replayed
    if planned is None or end is None:
        return
    findings.checks.append(check_target(planned.plan, end))
    if copy.cluster.heartbeat is not None:
        check, findings.heartbeat = check_heartbeat(
            instance,
            copy.cluster,
            planned,
            services.clocks.monotonic,
            statement_timeout_s=services.settings.drill.statement_timeout_s,
        )
        findings.checks.append(check)


def _look_inside(
    services: Services, copy: CopyUnderTest, instance: Instance, findings: Findings
) -> None:
    settings, database = services.settings.drill, copy.cluster.database
    checks = findings.checks
    if copy.prepared.planned is None:
        _count_rows(services, copy, instance, findings)
    else:
        checks.append(ROW_COUNTS_SKIPPED)
    checks.append(check_collations(instance, database))
    checks.append(check_relations(instance, database, timeout=settings.start_timeout_s))
    if copy.cluster.validation_sql is not None:
        limits = Limits(settings.statement_timeout_s, settings.start_timeout_s)
        text = _validation_text(copy.cluster)
        checks.append(check_validation_sql(instance, database, text, limits, role=_VALIDATION_ROLE))


def _count_rows(
    services: Services, copy: CopyUnderTest, instance: Instance, findings: Findings
) -> None:
    clock, timeout = services.clocks.monotonic, services.settings.drill.statement_timeout_s
    began = clock()
    findings.tables = restored_tables(
        instance, copy.facts.start, copy.facts.end, statement_timeout_s=timeout
    )
    findings.checks.append(tables_check(findings.tables, round(clock() - began, 3)))


def _validation_text(cluster: ClusterSettings) -> str:
    path = cluster.validation_sql
    try:
        return path.read_text("utf-8") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"cannot read {path}: {error}") from None


def _split(watch: Stopwatch, opening: Opening, *, replayed: bool) -> None:
    """Of the time until open, what came after the end of recovery is the phase `open`, and of a
    replay what came after the consistent point `replay`.
    """
    phases = watch.phases
    phases[DrillPhase.OPEN] = round((opening.first_query_s - opening.recovered_s) * 1000)
    phases[DrillPhase.RECOVERY] -= phases[DrillPhase.OPEN]
    if replayed:
        phases[DrillPhase.REPLAY] = round((opening.recovered_s - opening.consistent_s) * 1000)
        phases[DrillPhase.RECOVERY] -= phases[DrillPhase.REPLAY]
