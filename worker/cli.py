"""The command line: `pgkeep <verb>`. Parses, calls the verb, prints; decides nothing.

Every verb takes --config and --json. Exit statuses are those of shared.errors, in
docs/reference/cli.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from shared import adapters
from shared.domain.backup import BackupKind
from shared.domain.cluster import cluster_name
from shared.errors import InvalidInput
from shared.repository.backups import find_backup
from worker import job_runner, wiring
from worker.commands import (
    backup,
    catalogue_rebuild,
    check,
    drill,
    list_backups,
    printed,
    restore,
    verify,
)
from worker.commands.services import Services
from worker.keys.generate import generate_key_set

app = typer.Typer(
    name="pgkeep",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="PostgreSQL backup and recovery on Azure that proves it can restore.",
)
keys_app = typer.Typer(no_args_is_help=True, help="Make keys for development and escrow.")
catalogue_app = typer.Typer(no_args_is_help=True, help="The index that blobs can rebuild.")
app.add_typer(keys_app, name="keys")
app.add_typer(catalogue_app, name="catalogue")

Config = Annotated[
    Path | None, typer.Option("--config", envvar="PGKEEP_CONFIG", help="Path of pgkeep.toml.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")]
Cluster = Annotated[str, typer.Argument(help="Name of the cluster in the settings.")]
Label = Annotated[str | None, typer.Option("--label", help="The backup; default: the newest.")]


class MappingInvalid(InvalidInput):
    """A --tablespace-mapping that is not OLD=NEW."""

    code = "tablespace-mapping-invalid"
    hint = "Write --tablespace-mapping /old/path=/new/path; escape = in a path as \\=."


@app.command("backup")
def backup_command(cluster: Cluster, config: Config = None, json: Json = False) -> None:
    """Take a full backup of a cluster, straight into the repository."""
    with _services(config, quiet=json) as services:
        outcome = backup.back_up(
            services,
            services.settings.cluster_named(cluster),
            backup.BackupRequest(kind=BackupKind.FULL),
        )
        printed.backup_outcome(outcome, as_json=json)


@app.command("verify")
def verify_command(
    cluster: Cluster,
    label: Label = None,
    ciphertext_only: Annotated[
        bool, typer.Option("--ciphertext-only", help="Without a key: stored bytes only.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Read a backup back: every segment, every file. Exit 5 when it is damaged."""
    with _services(config, quiet=json) as services:
        ref = find_backup(services.store, cluster_name(cluster), label)
        report = verify.verify(services, ref, deep=not ciphertext_only)
        printed.verification(report, as_json=json)
        if not report.passed:
            raise typer.Exit(5)


@app.command("restore")
def restore_command(
    cluster: Cluster,
    target: Annotated[Path, typer.Argument(help="Empty or new data directory.")],
    label: Label = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    tablespace_mapping: Annotated[
        list[str] | None, typer.Option("--tablespace-mapping", "-T", help="OLD=NEW")
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", help="Account for the files, when run as root.")
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Restore a backup into an empty directory, ready for `pg_ctl start`."""
    with _services(config, quiet=json) as services:
        request = restore.RestoreRequest(
            cluster=cluster_name(cluster),
            label=label,
            target=target.absolute(),
            tablespace_mapping=parse_mappings(tablespace_mapping or []),
            owner=owner or services.settings.drill.run_as,
        )
        if dry_run:
            printed.restore_plan(restore.plan_only(services, request), as_json=json)
        else:
            printed.restore_outcome(restore.restore(services, request), as_json=json)


@app.command("drill")
def drill_command(
    cluster: Cluster,
    label: Label = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Prove a backup: restore it into a throw-away instance and check it. Exit 5 when it fails."""
    with _services(config, quiet=json) as services:
        report = drill.drill(
            services, services.settings.cluster_named(cluster), drill.DrillRequest(label=label)
        )
        printed.drill_report(report, as_json=json)
        if report.verdict != "proven":
            raise typer.Exit(5 if report.verdict == "failed" else 75)


@app.command("list")
def list_command(
    cluster: Annotated[str | None, typer.Argument(help="Only this cluster.")] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """List the backups in the repository."""
    with _services(config, quiet=True) as services:
        name = None if cluster is None else cluster_name(cluster)
        printed.backups(list(list_backups.list_all(services, name)), as_json=json)


@app.command("show")
def show_command(
    cluster: Cluster,
    label: Label = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Show one backup's document."""
    with _services(config, quiet=True) as services:
        printed.backup(list_backups.show(services, cluster_name(cluster), label), as_json=json)


@app.command("check")
def check_command(
    cluster: Annotated[str | None, typer.Argument(help="Only this cluster.")] = None,
    create_containers: Annotated[
        bool, typer.Option("--create-containers", help="First make those that are missing.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Check everything a backup and a drill will need. Exit 3 when something would fail."""
    with _services(config, quiet=True) as services:
        if create_containers:
            adapters.create_containers(services.settings.repository)
        results = check.check(services, cluster)
        printed.checks(results, as_json=json)
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
    with _services(config, quiet=True) as services:
        job_runner.run(services, queue or [], once=once, stop=wiring.stop_signal())


@catalogue_app.command("rebuild")
def rebuild_command(config: Config = None, json: Json = False) -> None:
    """Rebuild the catalogue's content from the repository. Needs the control identity."""
    with _services(config, quiet=True) as services:
        printed.rebuild(catalogue_rebuild.rebuild_catalogue(services), as_json=json)


@keys_app.command("generate")
def keys_generate_command(
    directory: Annotated[Path, typer.Argument(help="New directory for the PEM files.")],
    json: Json = False,
) -> None:
    """Make a wrapping, an escrow, a manifest and a signing key pair as PEM files."""
    printed.keys(generate_key_set(directory), as_json=json)


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


@contextmanager
def _services(config: Path | None, *, quiet: bool) -> Iterator[Services]:
    with printed.progress_bars(quiet=quiet) as progress:
        yield wiring.services(wiring.load_settings(config), progress)
