"""The verbs about single files of a backup."""

import os
from pathlib import Path
from typing import Annotated

import typer

from shared.domain.cluster import cluster_name
from worker.cli_session import Cluster, Config, FromSecondary, Json, open_services


def extract_command(
    cluster: Cluster,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH…", help="In the data directory; * ? [ ] as in a shell."),
    ],
    to: Annotated[Path, typer.Option("--to", help="Empty or new directory.")],
    label: Annotated[
        str | None, typer.Option("--label", help="The backup; default: the newest.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", help="Account for the files, when run as root.")
    ] = None,
    from_secondary: FromSecondary = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Write single files of a backup below a directory, whole, however many backups hold them.

    A path of a directory means everything below it. What comes out is never a data directory.
    """
    from worker.commands.extract import ExtractRequest, extract
    from worker.commands.printed_recovery import extract_outcome

    with open_services(config, quiet=json, from_secondary=from_secondary) as services:
        request = ExtractRequest(
            cluster_name(cluster), label, to.absolute(), tuple(map(os.fsencode, paths)), owner
        )
        extract_outcome(extract(services, request), as_json=json)
