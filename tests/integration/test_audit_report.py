"""The audit report: from signed documents alone, each of them named, and written once."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from shared.domain.cluster import cluster_name
from shared.domain.drill import DrillVerdict
from shared.repository import layout
from shared.repository.audit_report import AuditReport
from shared.repository.audit_trail import AuditEvent, append
from shared.repository.directory_blob_store import DirectoryBlobStore
from shared.repository.signatures import read_signed
from shared.settings import ClusterSettings
from tests.harness.signed_repository import NOON, Ed25519Signer, SignedRepository
from tests.harness.worker_services import Site
from worker.commands.audit import AuditPeriodInvalid, AuditRequest, audit
from worker.commands.services import Clocks, Services

pytestmark = [pytest.mark.integration]
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
ID = UUID(int=5)
# Fulls each day at noon, drills each week; nothing else is promised.
OFF = dict.fromkeys(
    ["verify", "drill_extended", "drill_simulation", "drill_disaster", "expire", "audit"], False
)
SCHEDULE = {**OFF, "full": "0 12 * * *", "incremental": False, "drill_quick": "0 12 * * 0"}


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    store = DirectoryBlobStore(tmp_path / "repository")
    for container in layout.CONTAINERS:
        store.create_container(container)
    made = SignedRepository(store)
    made.register()
    return made


def services(site: Site, repository: SignedRepository) -> Services:
    clocks = Clocks(now=lambda: NOON + 30 * DAY, monotonic=lambda: 0.0)
    made = site.services(store=repository.store, signer=repository.signer, pinned=repository.pinned)
    return replace(made, clocks=clocks)


def cluster(**promised: Any) -> ClusterSettings:
    return ClusterSettings(
        name="demo", dsn="host=nowhere user=b", schedule=SCHEDULE, objectives=promised
    )


def of_three_days(**changes: Any) -> AuditRequest:
    return AuditRequest(
        **{"since": NOON - DAY - HOUR, "until": NOON + 2 * DAY, "audit_id": ID, **changes}
    )


def test_it_tells_what_was_promised_done_missed_and_broken(
    site: Site, repository: SignedRepository
) -> None:
    first = repository.commit(at=NOON + timedelta(minutes=1))
    second = repository.commit(at=NOON + DAY, previous=first)
    repository.commit(at=NOON + 9 * DAY, previous=second)
    repository.verify(first, "good")
    repository.verify(second, "bad", passed=False, created_at=NOON + DAY + timedelta(hours=1))
    repository.drill(first, "rehearsal", DrillVerdict.PROVEN)
    forged = repository.commit(at=NOON + 1.5 * DAY, previous=second, signer=Ed25519Signer("other"))

    report = audit(services(site, repository), cluster(), of_three_days())

    full, drill = report.duties
    missed = (NOON - DAY).replace(microsecond=0)
    assert (full.kind, full.expected, full.met, full.open) == ("full", 4, 2, 1)
    assert full.missed == (missed,)
    assert (drill.kind, drill.expected, drill.met) == ("drill_quick", 1, 1)
    assert [(one.label, one.verified, one.drill) for one in report.backups] == [
        (first.ref.label.text, True, "proven"),
        (second.ref.label.text, False, None),
    ]
    assert [(one.kind, one.id, one.verdict) for one in report.evidence] == [
        ("verification", "good", "intact"),
        ("drill", "rehearsal", "proven"),
        ("verification", "bad", "damaged"),
    ]
    assert [one.object for one in report.disbelieved] == [str(forged.ref.document)]
    assert (report.objectives.worst_rto_ms, report.objectives.worst_rpo_ms) == (1500, None)
    assert (report.trail.events, report.trail.breaks) == (0, ())
    assert not report.passed


def test_a_gap_in_the_audit_trail_is_told_and_nothing_passes(
    site: Site, repository: SignedRepository
) -> None:
    previous = None
    for day in range(-1, 2):
        previous = repository.commit(at=NOON + day * DAY, previous=previous)
    assert previous is not None
    repository.drill(previous, "rehearsal", DrillVerdict.PROVEN)
    for number in range(3):
        append(repository.store, partial(trail_event, number))
    able = services(site, repository)
    assert audit(able, cluster(), of_three_days()).trail.events == 3

    repository.store.delete(layout.audit_event(2))
    broken = audit(able, cluster(), of_three_days(audit_id=UUID(int=6)))
    assert broken.trail.breaks != ()
    assert not broken.passed


def trail_event(serial: int, number: int, previous: str | None) -> AuditEvent:
    return AuditEvent(
        number=number,
        id=UUID(int=serial),
        at=NOON,
        caller="anna",
        caller_name="Anna",
        action="backups.create",
        object="demo",
        outcome="allowed",
        details={},
        previous=previous,
    )


def test_a_period_in_which_all_was_done_passes_and_a_broken_objective_does_not(
    site: Site, repository: SignedRepository
) -> None:
    previous = None
    for day in range(-1, 2):
        previous = repository.commit(at=NOON + day * DAY, previous=previous)
    repository.drill(previous, "rehearsal", DrillVerdict.PROVEN)  # type: ignore[arg-type] # three were made
    able = services(site, repository)

    assert audit(able, cluster(), of_three_days()).passed
    promised = cluster().model_copy(
        update={"objectives": cluster().objectives.model_copy(update={"rto_minutes": 0.01})}
    )
    assert not audit(able, promised, of_three_days(audit_id=UUID(int=6))).passed


def test_it_is_signed_and_a_second_delivery_gives_the_first_report(
    site: Site, repository: SignedRepository
) -> None:
    able = services(site, repository)
    first = audit(able, cluster(), of_three_days())
    repository.commit(at=NOON)
    second = audit(able, cluster(), of_three_days())

    blob = layout.audit_report(cluster_name("demo"), str(ID))
    stored = read_signed(repository.store.read(blob, limit=1 << 20), AuditReport, able.pinned)
    assert first == second == stored
    assert stored.backups == ()


@pytest.mark.parametrize(
    "changes", [{"until": NOON + 31 * DAY}, {"until": NOON - 2 * DAY}, {"since": NOON + 3 * DAY}]
)
def test_a_period_that_is_empty_or_not_over_is_refused(
    site: Site, repository: SignedRepository, changes: dict[str, Any]
) -> None:
    with pytest.raises(AuditPeriodInvalid):
        audit(services(site, repository), cluster(), of_three_days(**changes))
