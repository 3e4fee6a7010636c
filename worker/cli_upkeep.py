"""The verbs that keep a repository in order over the years."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from shared.errors import InvalidInput
from worker.cli_session import Cluster, Config, Json, open_services
from worker.commands.services import Clocks, Services


class DayWithoutDryRun(InvalidInput):
    """A day to look ahead to, without --dry-run."""

    code = "expire-day-without-dry-run"
    hint = "Add --dry-run, or leave --at out."


class DayInvalid(InvalidInput):
    """A text that is no day and no instant."""

    code = "day-invalid"
    hint = "Write 2026-11-22, or 2026-11-22T10:00:00+00:00."


def expire_command(
    cluster: Cluster,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Delete nothing; show what would go, and why.")
    ] = False,
    at: Annotated[
        str | None,
        typer.Option("--at", help="With --dry-run: as if it were this day, if nothing new came."),
    ] = None,
    plan: Annotated[
        str | None, typer.Option("--plan", help="Only if it is the plan that a dry run printed.")
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Delete what retention no longer wants; tell what can still be restored. Exit 3 if refused.

    Never deletes the last verified full backup with continuous WAL, nor what anything that stays
    needs. Needs no private key but the one that signs the report, and a dry run not even that.
    """
    from worker.commands import printed_expiry
    from worker.commands.expire import ExpireRequest, expire

    if at is not None and not dry_run:
        raise DayWithoutDryRun("--at looks ahead, and nothing is deleted ahead of its time")
    with open_services(config, quiet=json) as present:
        services = present if at is None else _as_of(present, parse_day(at))
        request = ExpireRequest(dry_run=dry_run, plan=plan)
        outcome = expire(services, services.settings.cluster_named(cluster), request)
        printed_expiry.expiry(outcome, as_json=json)
        if outcome.report.refused is not None:
            raise typer.Exit(3)


def maintenance_command(
    cluster: Cluster,
    minutes: Annotated[
        int | None, typer.Option("--minutes", min=1, help="Default: maintenance.minutes.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Rebuild invalid and bloated indexes, refresh old statistics, within the time given.

    Exit 1 when something failed; what would have taken too long is left for the next time.
    """
    from worker.commands import printed_upkeep
    from worker.commands.maintenance import MaintenanceRequest, maintain

    with open_services(config, quiet=json) as services:
        settings = services.settings.cluster_named(cluster)
        room = timedelta(minutes=minutes or settings.maintenance.minutes)
        request = MaintenanceRequest(until=services.clocks.now() + room, dry_run=dry_run)
        outcome = maintain(services, settings, request)
        printed_upkeep.maintenance(outcome, as_json=json)
        if outcome.failed:
            raise typer.Exit(1)


def audit_command(
    cluster: Cluster,
    since: Annotated[str, typer.Option("--since", help="First day or instant, UTC if not said.")],
    until: Annotated[str, typer.Option("--until", help="The first that no longer counts.")],
    config: Config = None,
    json: Json = False,
) -> None:
    """Write the signed report of what was promised, done and proven. Exit 5 when not all was."""
    from worker.commands import printed_upkeep
    from worker.commands.audit import AuditRequest, audit

    request = AuditRequest(parse_day(since), parse_day(until))
    with open_services(config, quiet=json) as services:
        report = audit(services, services.settings.cluster_named(cluster), request)
        printed_upkeep.audit(report, as_json=json)
        if not report.passed:
            raise typer.Exit(5)


def _as_of(services: Services, at: datetime) -> Services:
    return replace(services, clocks=Clocks(now=lambda: at, monotonic=services.clocks.monotonic))


def parse_day(text: str) -> datetime:
    """A day or an instant in ISO 8601; without a zone it is UTC. Raises DayInvalid."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise DayInvalid(f"{text!r} is no day and no instant") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
