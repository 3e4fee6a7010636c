"""`pgkeep check`: everything that a backup and a drill will need, looked at before they need it.

Named checks, each with its finding; a failed one carries the hint of the error it met, and the
statements that would mend it. Nothing is written but a lease that is given back at once.
"""

from collections.abc import Iterator
from functools import partial

from shared.domain.cluster import cluster_name
from shared.domain.drill import CheckOutcome
from shared.errors import PgkeepError
from shared.jobs.lease import hold
from shared.repository import layout
from shared.repository.key_record import PRODUCTION_RECIPIENTS, KeyPurpose, KeyRecord, commitment
from shared.repository.key_record import new_kid as new_key_id
from worker.commands.check_result import Advice, CheckFailed, CheckResult
from worker.commands.cluster_checks import Look, cluster_checks, lacks_behind
from worker.commands.cluster_identity import signer_of
from worker.commands.secondary import from_secondary
from worker.commands.services import Services

# Leases and drills compare the host's clock with the storage's; this much does no harm.
TOLERATED_SKEW_S = 60


def check(services: Services, cluster: str | None) -> list[CheckResult]:
    """All checks, in the order in which a backup would meet the trouble. Never raises for one."""
    named = services.settings.cluster
    wanted = named if cluster is None else (services.settings.cluster_named(cluster),)
    results = [_result(services, look) for look in _repository_checks(services)]
    for settings in wanted:
        results += [_result(services, look) for look in cluster_checks(services, settings)]
    return results


def _result(services: Services, look: Look) -> CheckResult:
    clock = services.clocks.monotonic
    began = clock()
    try:
        outcome, found = CheckOutcome.PASSED, look.ask()
        advice = found if isinstance(found, Advice) else Advice(found)
    except PgkeepError as error:
        outcome = CheckOutcome.FAILED
        words = str(error).rstrip(".")  # the server's may end in one
        advice = Advice(f"{words}. {error.advice}", lacks_behind(error, look.server))
    server = look.server.label if look.server else ""
    seconds = round(clock() - began, 3)
    return CheckResult(look.name, outcome, advice.detail, seconds, server, advice.lacks)


def _repository_checks(services: Services) -> Iterator[Look]:
    yield Look("containers", partial(_containers, services))
    yield Look("lease and clock", partial(_lease_and_clock, services))
    yield Look("recipients", partial(_recipients, services))
    yield Look("signing key", partial(_signing_key, services))
    if services.settings.keys.unwrap:
        yield Look("unwrapping key", partial(_unwrapping_key, services))
    if services.secondary is not None:
        yield Look("secondary", partial(_secondary, services))


def _containers(services: Services) -> str:
    for container in layout.CONTAINERS:
        next(iter(services.store.list(container)), None)
    return f"{len(layout.CONTAINERS)} containers can be listed"


def _lease_and_clock(services: Services) -> str:
    name = layout.lock(cluster_name("pgkeep-check"), services.random(4).hex()).path
    ttl = services.settings.worker.lease_seconds
    with hold(services.leases, name, services.host, ttl_s=ttl) as renewal:
        skew = abs((renewal.lease.acquired_at - services.clocks.now()).total_seconds())
    if skew > TOLERATED_SKEW_S:
        raise CheckFailed(f"this host's clock differs from the storage's by {skew:.0f} s")
    return f"a lease was granted and given back; the clocks differ by {skew:.0f} s"


def _recipients(services: Services) -> str:
    count = len(services.settings.keys.recipients)
    if count == 0:
        raise CheckFailed("keys.recipients is empty: nothing could be sealed")
    if count < PRODUCTION_RECIPIENTS and services.settings.profile == "production":
        raise CheckFailed("keys.recipients has one key: losing it would lose every backup")
    return f"data keys are wrapped to {count} public keys"


def _signing_key(services: Services) -> str:
    signer = signer_of(services)
    if signer.key_id not in services.pinned:
        raise CheckFailed(f"signing key {signer.key_id} is not pinned: nobody would believe it")
    services.pinned[signer.key_id].verify(signer.sign(b"pgkeep check"), b"pgkeep check")
    return f"{signer.algorithm} key {signer.key_id} signs and is pinned"


def _unwrapping_key(services: Services) -> str:
    data_key, recipients = services.key_ring.new_data_key(KeyPurpose.BACKUP)
    kid = new_key_id()
    services.key_ring.unwrap(
        KeyRecord(
            kid=kid,
            cluster="pgkeep-check",
            cluster_uuid="none",
            purpose=KeyPurpose.BACKUP,
            commitment=commitment(data_key.reveal(), kid),
            recipients=tuple(recipients),
            created_at=services.clocks.now(),
        )
    )
    return "a data key that was wrapped here can be unwrapped here"


def _secondary(services: Services) -> str:
    there = from_secondary(services)
    next(iter(there.store.list(layout.EVIDENCE)), None)
    reached = there.elsewhere.last_sync_time if there.elsewhere else None
    if reached is None:
        return "it can be read; its Last Sync Time is not told to this identity"
    return f"it can be read, as of Last Sync Time {reached:%Y-%m-%dT%H:%M:%SZ}"
