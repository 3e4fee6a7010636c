"""`python -m local demo`: the product's main job, end to end, on real parts.

A database that keeps changing is backed up because a timer says so, verified and catalogued
because its upload says so, and proven by a drill because somebody asks for one over HTTP. Its WAL
is received all the while. Then somebody empties a table; a copy is recovered to the second before,
and a last drill measures what would be lost if the source were lost now.
"""

import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from local import stack, stack_directory
from local.configuration import DATABASE
from local.demo_printed import print_report
from local.demo_progress import Steps
from local.demo_report import Played, summarise
from local.demo_rescue import await_archived, rescue
from local.demo_watch import Stage, await_backup, await_drill, await_proof, await_verification
from local.document_database.load import load
from local.document_database.mistake import empty_by_mistake
from local.document_database.workload import changing
from local.stack_directory import StackDirectory
from shared.errors import PgkeepError

# Nobody wants to wait a minute for a timer to tick.
SCHEDULES = {
    "PGKEEP_DISPATCH_SCHEDULE": "*/2 * * * * *",
    "PGKEEP_FRESHNESS_SCHEDULE": "*/5 * * * * *",
    "PGKEEP_RECONCILE_SCHEDULE": "0 */5 * * * *",
}
REPORT = "report.json"


def run_demo(root: Path, megabytes: int) -> bool:
    """Whether the backup was proven. The report is printed and written to `root`/report.json.

    Raises DirectoryNotOurs, StackRuns; any other trouble becomes the report's verdict.
    """
    began, played = time.monotonic(), Played()
    console = Console(highlight=False)
    with stack_directory.claimed(root) as directory:
        steps = Steps(console)
        try:
            with steps.shown():
                _play(directory, steps, megabytes, played)
        except PgkeepError as error:
            played.reason = str(error)
    report = summarise(played, time.monotonic() - began)
    (root / REPORT).write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
    print_report(console, report)
    console.print(f"The same in {root / REPORT}; logs beside it.")
    return report.verdict == "proven"


def _play(directory: StackDirectory, steps: Steps, megabytes: int, played: Played) -> None:
    with ExitStack() as parts:
        with steps.step("start PostgreSQL and Azurite"):
            servers = parts.enter_context(stack.running_servers(directory))
        database = servers.source.dsn(DATABASE)
        with steps.step("load documents") as step:
            played.database = load(database, megabytes, report=step.update)
        played.activity = parts.enter_context(changing(database))
        with steps.step("start functions host and worker"):
            edges = parts.enter_context(stack.running_edges(directory, servers, SCHEDULES))
        stage = Stage.of(servers, edges)
        with steps.step("timer: full backup") as step:
            label = await_backup(stage, step)
            played.backup = stage.read_backup(label)
        with steps.step("blob event: verify, catalogue") as step:
            played.catalogued = await_verification(stage, step, label)
        with steps.step("HTTP: drill") as step:
            played.drills.append(await_drill(stage, step, label))
            played.catalogued = await_proof(stage, label)
        with steps.step("somebody empties a table") as step:
            mistake = empty_by_mistake(database)
            step.update(1, 1, f"{mistake.lost.rows} rows gone")
        with steps.step("WAL of that instant is stored") as step:
            await_archived(stage, step, mistake.at)
        with steps.step("recover to the second before"):
            played.rescue = rescue(directory, servers, mistake)
        with steps.step("HTTP: drill to the latest") as step:
            played.drills.append(await_drill(stage, step, label, latest=True))
