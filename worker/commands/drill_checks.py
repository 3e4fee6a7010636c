"""Everything a drill looks at once the files are there: does it open, and is it what was saved?"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from shared.domain.drill import Check, CheckOutcome, DrillPhase, TableVerdict, tables_check
from shared.errors import SettingsInvalid
from shared.repository import layout
from shared.settings import ClusterSettings
from worker.commands.opened_backup import OpenedBackup
from worker.commands.services import Services, Stopwatch
from worker.commands.source_facts import SourceFacts
from worker.postgres.instance import Instance, running_instance, stop_cleanly, wait_until_open
from worker.postgres.programs import Account, ControlData, Programs
from worker.postgres.restored_checks import (
    check_collations,
    check_page_checksums,
    check_relations,
    restored_tables,
)
from worker.postgres.scratch import Scratch
from worker.postgres.validation_sql import Limits, check_validation_sql

_VALIDATION_ROLE = "pgkeep_validation"


@dataclass(frozen=True, slots=True)
class CopyUnderTest:
    """A restored data directory and what is known of it."""

    scratch: Scratch
    programs: Programs
    control: ControlData
    account: Account | None
    facts: SourceFacts
    cluster: ClusterSettings


def run_checks(
    services: Services, copy: CopyUnderTest, watch: Stopwatch, checks: list[Check]
) -> tuple[TableVerdict, ...]:
    """Open the copy and check it, in the order that worker.postgres.restored_checks demands.

    Appends to `checks` as it goes, so that what was seen stays when a later step raises. Raises
    InstanceNotStarted, InstanceLacksLibrary, InstanceStarved, InstanceTimeout, and whatever else
    asking the copy may raise: it touches nothing but the copy.
    """
    services.progress.phase("recovery")
    with running_instance(
        copy.scratch,
        copy.programs,
        copy.control,
        account=copy.account,
        superuser=copy.facts.server.bootstrap_superuser,
    ) as instance:
        timeout = services.settings.drill.start_timeout_s
        opening = wait_until_open(instance, copy.cluster.database, timeout=timeout)
        watch.lap(DrillPhase.RECOVERY)
        _split(watch, opening.recovered_s, opening.first_query_s)
        opened = f"consistent after {opening.consistent_s:.1f} s, read-write after "
        detail = f"{opened}{opening.recovered_s:.1f} s"
        checks.append(Check("opens", CheckOutcome.PASSED, detail, round(opening.first_query_s, 3)))
        services.progress.phase("checks")
        tables = _look_inside(services, copy, instance, checks)
        stop_cleanly(instance)
        checks.append(check_page_checksums(instance, copy.control, timeout=timeout))
    watch.lap(DrillPhase.CHECKS)
    return tables


def _look_inside(
    services: Services,
    copy: CopyUnderTest,
    instance: Instance,
    checks: list[Check],
) -> tuple[TableVerdict, ...]:
    settings, database = services.settings.drill, copy.cluster.database
    clock = services.clocks.monotonic
    began = clock()
    tables = restored_tables(
        instance, copy.facts.start, copy.facts.end, statement_timeout_s=settings.statement_timeout_s
    )
    checks.append(tables_check(tables, round(clock() - began, 3)))
    checks.append(check_collations(instance, database))
    checks.append(check_relations(instance, database, timeout=settings.start_timeout_s))
    if copy.cluster.validation_sql is not None:
        limits = Limits(settings.statement_timeout_s, settings.start_timeout_s)
        text = _validation_text(copy.cluster)
        checks.append(check_validation_sql(instance, database, text, limits, role=_VALIDATION_ROLE))
    return tables


def read_facts(backup: OpenedBackup) -> SourceFacts:
    """What was recorded at backup time. Raises as reading a sealed object does."""
    with ThreadPoolExecutor(1) as executor:
        return SourceFacts.from_json(b"".join(backup.object_chunks(layout.FACTS, executor)))


def _validation_text(cluster: ClusterSettings) -> str:
    path = cluster.validation_sql
    try:
        return path.read_text("utf-8") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"cannot read {path}: {error}") from None


def _split(watch: Stopwatch, recovered_s: float, first_query_s: float) -> None:
    """Of the time until open, what came after the end of recovery is the phase `open`."""
    opening = round((first_query_s - recovered_s) * 1000)
    watch.phases[DrillPhase.RECOVERY] -= opening
    watch.phases[DrillPhase.OPEN] = opening
