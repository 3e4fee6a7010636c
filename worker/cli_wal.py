"""`pgkeep wal …`: the two long-running processes that keep WAL in the repository."""

import typer

from worker import wiring
from worker.cli_session import Cluster, Config, FromSecondary, open_services

# Azure Container Apps kills 30 s after SIGTERM. What is not acknowledged by then PostgreSQL has.
_GRACE_S = 28

app = typer.Typer(no_args_is_help=True, help="Keep WAL in the repository, and give it back.")


@app.command("receive")
def receive_command(cluster: Cluster, config: Config = None) -> None:
    """Receive WAL over a replication slot until told to stop; seconds of RPO."""
    from worker.commands.wal_receive import receive

    with open_services(config, quiet=True, scraped=True) as services:
        settings = services.settings.cluster_named(cluster)
        receive(services, settings, stop=wiring.stop_signal(_GRACE_S))


@app.command("agent")
def agent_command(
    cluster: Cluster, from_secondary: FromSecondary = False, config: Config = None
) -> None:
    """Serve `pgkeep-wal push` and `fetch` on this host until told to stop.

    With --from-secondary it only gives WAL back, and refuses to take any.
    """
    from worker.commands.wal_agent import run_agent

    session = open_services(config, quiet=True, from_secondary=from_secondary, scraped=True)
    with session as services:
        settings = services.settings.cluster_named(cluster)
        run_agent(services, settings, stop=wiring.stop_signal(_GRACE_S))
