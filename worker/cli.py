"""The command line: `pgkeep <verb>`. Parses, calls the verb, prints; decides nothing.

Every verb takes --config and --json. Exit statuses are those of shared.errors, in
docs/reference/cli.md. Each command imports what it does and how it prints that, so that no other
waits for it: a quarter of the time until a verb begins.
"""

from pathlib import Path
from typing import Annotated

import typer

from shared.domain.backup import BackupKind
from shared.domain.cluster import cluster_name
from shared.domain.recovery_target import TargetAction
from shared.errors import InvalidInput
from worker import cli_files, cli_upkeep, cli_wal, wiring
from worker.cli_session import Cluster, Config, FromSecondary, Json, open_services
from worker.commands import printed

app = typer.Typer(
    name="pgkeep",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="PostgreSQL backup and recovery on Azure that proves it can restore.",
)
keys_app = typer.Typer(
    no_args_is_help=True, help="Make keys for development and escrow; pin those of Key Vault."
)
catalogue_app = typer.Typer(no_args_is_help=True, help="The index that blobs can rebuild.")
app.command("extract")(cli_files.extract_command)
app.command("expire")(cli_upkeep.expire_command)
app.command("maintenance")(cli_upkeep.maintenance_command)
app.command("audit")(cli_upkeep.audit_command)
app.add_typer(cli_wal.app, name="wal")
app.add_typer(keys_app, name="keys")
app.add_typer(catalogue_app, name="catalogue")

Label = Annotated[str | None, typer.Option("--label", help="The backup; default: the newest.")]
ToTime = Annotated[
    str | None, typer.Option("--to-time", help="Recover to an instant, ISO 8601 with its offset.")
]
ToLsn = Annotated[str | None, typer.Option("--to-lsn", help="Recover to a position in the WAL.")]
ToXid = Annotated[
    str | None, typer.Option("--to-xid", help="Recover to the end of a transaction, by its number.")
]
ToName = Annotated[str | None, typer.Option("--to-name", help="Recover to a restore point.")]
ToLatest = Annotated[
    bool, typer.Option("--to-latest", help="Recover to the end of the archived WAL.")
]
Immediate = Annotated[
    bool, typer.Option("--immediate", help="End with the backup: so without any target.")
]
Exclusive = Annotated[bool, typer.Option("--exclusive", help="Stop just before the target.")]
Timeline = Annotated[
    int | None, typer.Option("--timeline", min=1, help="Default: the plan chooses, and says why.")
]
Action = Annotated[
    TargetAction, typer.Option("--target-action", help="promote, pause or shutdown at the target.")
]
Recover = Annotated[
    bool, typer.Option("--recover", help="Replay here and now, in a private server.")
]
Mapping = Annotated[list[str] | None, typer.Option("--tablespace-mapping", "-T", help="OLD=NEW")]
Owner = Annotated[
    str | None, typer.Option("--owner", help="Account for the files, when run as root.")
]


class MappingInvalid(InvalidInput):
    """A --tablespace-mapping that is not OLD=NEW."""

    code = "tablespace-mapping-invalid"
    hint = "Write --tablespace-mapping /old/path=/new/path; escape = in a path as \\=."


class BackupKindInvalid(InvalidInput):
    """Options that ask for two kinds of backup at once, or for none that there is."""

    code = "backup-kind-invalid"
    hint = "Give --incremental, or --synthetic with or without --label, or neither."


@app.command("backup")
def backup_command(
    cluster: Cluster,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Changed blocks only; or full, and why.")
    ] = False,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="A full one composed of a chain; asks no server.")
    ] = False,
    label: Annotated[
        str | None, typer.Option("--label", help="With --synthetic: the chain's newest backup.")
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Take a backup of a cluster, straight into the repository: a full one, if not told otherwise.

    An incremental one that cannot be taken becomes a full one that says why, or fails: as
    incremental.when_impossible has it.
    """
    from worker.commands import backup
    from worker.commands.synthetic import SyntheticRequest, synthesize

    if synthetic and incremental:
        raise BackupKindInvalid("a backup is either incremental or synthetic")
    if label and not synthetic:
        raise BackupKindInvalid("--label names the chain that --synthetic composes")
    with open_services(config, quiet=json) as services:
        settings = services.settings.cluster_named(cluster)
        if synthetic:
            outcome = synthesize(services, settings, SyntheticRequest(label))
        else:
            kind = BackupKind.INCREMENTAL if incremental else BackupKind.FULL
            outcome = backup.back_up(services, settings, backup.BackupRequest(kind))
        printed.backup_outcome(outcome, as_json=json)


@app.command("verify")
def verify_command(
    cluster: Cluster,
    label: Label = None,
    ciphertext_only: Annotated[
        bool, typer.Option("--ciphertext-only", help="Without a key: stored bytes only.")
    ] = False,
    whole_chain: Annotated[
        bool, typer.Option("--whole-chain", help="Read every link again, proved before or not.")
    ] = False,
    from_secondary: FromSecondary = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Read a backup back: every segment, every file. Exit 5 when it is damaged.

    Of the backups that an incremental one builds on, those are read that no report proves yet.
    """
    from shared.repository.backups import find_backup
    from worker.commands.verify import verify

    with open_services(config, quiet=json, from_secondary=from_secondary) as services:
        ref = find_backup(services.store, cluster_name(cluster), label)
        report = verify(services, ref, deep=not ciphertext_only, whole_chain=whole_chain)
        printed.verification(report, as_json=json)
        if not report.passed:
            raise typer.Exit(5)


@app.command("restore")
def restore_command(
    cluster: Cluster,
    target: Annotated[Path, typer.Argument(help="Empty or new data directory.")],
    label: Label = None,
    to_time: ToTime = None,
    to_lsn: ToLsn = None,
    to_xid: ToXid = None,
    to_name: ToName = None,
    to_latest: ToLatest = False,
    immediate: Immediate = False,
    exclusive: Exclusive = False,
    timeline: Timeline = None,
    target_action: Action = TargetAction.PROMOTE,
    recover: Recover = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    tablespace_mapping: Mapping = None,
    owner: Owner = None,
    from_secondary: FromSecondary = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Restore a backup into an empty directory, and recover it to any instant since.

    Without --recover the server that you start replays, with WAL from `pgkeep wal agent`.
    """
    from worker.commands import printed_recovery, recovery_rates, restore
    from worker.commands.recover import recover as recover_here
    from worker.commands.target_options import TargetOptions

    to = TargetOptions(to_time, to_lsn, to_xid, to_name, to_latest, immediate)
    wanted = to.request(exclusive=exclusive, timeline=timeline, action=target_action)
    with open_services(config, quiet=json, from_secondary=from_secondary) as services:
        request = restore.RestoreRequest(
            cluster=cluster_name(cluster),
            label=label,
            target=target.absolute(),
            tablespace_mapping=parse_mappings(tablespace_mapping or []),
            owner=owner or services.settings.drill.run_as,
            recovery=wanted,
        )
        if dry_run:
            prepared = restore.plan_only(services, request)
            rates = recovery_rates.estimate(services, prepared)
            printed_recovery.restore_plan(prepared, rates, as_json=json)
        elif recover:
            outcome = recover_here(services, request)
            printed_recovery.recovery_outcome(outcome, as_json=json)
        else:
            printed_recovery.restore_outcome(restore.restore(services, request), as_json=json)


@app.command("drill")
def drill_command(
    cluster: Cluster,
    label: Label = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="latest, random, or an instant; default: the backup's end."),
    ] = None,
    from_secondary: FromSecondary = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Prove a backup: restore it into a throw-away instance and check it. Exit 5 when it fails."""
    from worker.commands.drill import DrillRequest, drill
    from worker.commands.printed_recovery import drill_report

    with open_services(config, quiet=json) as services:
        request = DrillRequest(label, target=to, from_secondary=from_secondary)
        report = drill(services, services.settings.cluster_named(cluster), request)
        drill_report(report, as_json=json)
        if report.verdict != "proven":
            raise typer.Exit(5 if report.verdict == "failed" else 75)


@app.command("list")
def list_command(
    cluster: Annotated[str | None, typer.Argument(help="Only this cluster.")] = None,
    from_secondary: FromSecondary = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """List the backups in the repository."""
    from worker.commands.list_backups import list_all

    with open_services(config, quiet=True, from_secondary=from_secondary) as services:
        name = None if cluster is None else cluster_name(cluster)
        printed.backups(list(list_all(services, name)), as_json=json)


@app.command("show")
def show_command(
    cluster: Cluster,
    label: Label = None,
    configuration: Annotated[
        bool,
        typer.Option("--configuration", help="The server's settings at the time; needs a key."),
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Show one backup's document; without a label the newest, and how far WAL is archived."""
    from worker.commands import list_backups, printed_wal
    from worker.commands.wal_state import wal_state

    with open_services(config, quiet=True) as services:
        name = cluster_name(cluster)
        stored = list_backups.show(services, name, label)
        if configuration:
            facts = list_backups.recorded_configuration_of(services, stored)
            printed.configuration(facts, as_json=json)
            return
        if label is not None:
            printed.backup(stored, {}, as_json=json)
            return
        state = wal_state(services, name)
        printed.backup(stored, {"wal": printed_wal.wal_members(state)}, as_json=json)
        if not json:
            printed_wal.wal_state(state, as_json=False)


@app.command("check")
def check_command(
    cluster: Annotated[str | None, typer.Argument(help="Only this cluster.")] = None,
    create_containers: Annotated[
        bool, typer.Option("--create-containers", help="First make those that are missing.")
    ] = False,
    settings_only: Annotated[
        bool, typer.Option("--settings-only", help="Only the file, and what it promises.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Check everything a backup and a drill will need. Exit 3 when something would fail.

    Settings that do not read are exit status 2, with file, line and key.
    """
    from shared.adapters import create_containers as make_containers
    from worker.commands import printed_check, printed_upkeep
    from worker.commands.check import check
    from worker.commands.settings_check import effective_policies

    if settings_only:
        found = effective_policies(wiring.load_settings(config), wiring.now())
        printed_upkeep.policies(found, as_json=json)
        return
    with open_services(config, quiet=True) as services:
        if create_containers:
            make_containers(services.settings.repository)
        results = check(services, cluster)
        printed_check.checks(results, as_json=json)
        if any(result.outcome == "failed" for result in results):
            raise typer.Exit(3)


@app.command("run")
def run_command(
    queue: Annotated[
        list[str] | None, typer.Option("--queue", help="Only these queues; default: all.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="One job, if any, then exit.")] = False,
    config: Config = None,
) -> None:
    """Do the jobs on the queues until told to stop: what the container runs."""
    from worker import job_runner

    with open_services(config, quiet=True, scraped=True) as services:
        job_runner.run(
            services, queue or [], once=once, stop=wiring.job_stop_signal(job_runner.GRACE_S)
        )


@app.command("health")
def health_command(json: Json = False) -> None:
    """Whether the `run`, `wal receive` or `wal agent` of this container still turns."""
    printed.health(wiring.check_life(), as_json=json)


@catalogue_app.command("rebuild")
def rebuild_command(config: Config = None, json: Json = False) -> None:
    """Rebuild the catalogue's content from the repository. Needs the control identity."""
    from worker.commands.catalogue_rebuild import rebuild_catalogue

    with open_services(config, quiet=True) as services:
        printed.rebuild(rebuild_catalogue(services), as_json=json)


@keys_app.command("generate")
def keys_generate_command(
    directory: Annotated[Path, typer.Argument(help="New directory for the PEM files.")],
    json: Json = False,
) -> None:
    """Make a wrapping, an escrow, a manifest and a signing key pair as PEM files."""
    from worker.keys.generate import generate_key_set

    printed.keys(generate_key_set(directory), as_json=json)


@keys_app.command("describe")
def keys_describe_command(
    key_id: Annotated[str, typer.Argument(help="Id of a Key Vault key; newest version if none.")],
    client_id: Annotated[
        str | None, typer.Option(help="Ask as this managed identity; default: as the Azure CLI.")
    ] = None,
    json: Json = False,
) -> None:
    """Print what the settings need to wrap to a Key Vault key, or to believe its signatures."""
    from worker.keys.public_half import public_half

    printed.public_half(public_half(key_id, wiring.person(client_id)), as_json=json)


def parse_mappings(texts: list[str]) -> dict[str, str]:
    """`OLD=NEW` with `\\=` for an equals sign inside a path, as pg_basebackup takes it."""
    mappings = {}
    for text in texts:
        parts = text.replace("\\=", "\0").split("=")
        if len(parts) != 2 or not all(parts):  # noqa: PLR2004 - OLD and NEW
            raise MappingInvalid(f"{text!r} is not OLD=NEW")
        old, new = (part.replace("\0", "=") for part in parts)
        if old in mappings:
            raise MappingInvalid(f"{old} is mapped twice")
        mappings[old] = new
    return mappings
