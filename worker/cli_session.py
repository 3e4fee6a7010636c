"""What every command of the command line shares: its usual options, and its services."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from worker import wiring
from worker.commands import printed
from worker.commands.secondary import from_secondary as reading_there
from worker.commands.services import Services

Config = Annotated[
    str | None,
    typer.Option(
        "--config", envvar="PGKEEP_CONFIG", help="pgkeep.toml: its path, or a blob's URL."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")]
Cluster = Annotated[str, typer.Argument(help="Name of the cluster in the settings.")]
FromSecondary = Annotated[
    bool,
    typer.Option("--from-secondary", help="Read the copy in the second region; nothing else."),
]


@contextmanager
def open_services(
    config: str | None, *, quiet: bool, from_secondary: bool = False, scraped: bool = False
) -> Iterator[Services]:
    """Services of one command, with progress bars unless `quiet`; `scraped` if it runs for long.

    At the end its telemetry is sent, however it ends.
    """
    with (
        wiring.observed(scraped=scraped) as telemetry,
        printed.progress_bars(quiet=quiet) as progress,
    ):
        services = wiring.services(wiring.load_settings(config), progress, telemetry)
        if from_secondary:
            services = reading_there(services)
        if services.elsewhere:
            printed.secondary(services.elsewhere.last_sync_time)
        yield services
