"""`python -m local demo`: the product's main job, end to end, on real parts.

A database that keeps changing is backed up because a timer says so, and three times more, each
time only what changed, because somebody asks over HTTP. Every backup is verified and catalogued
because its upload says so; a drill restores the chain in place and proves it. WAL is received all
the while. A lifecycle rule that would delete the chain's full backup is planted in the account, and
caught. Then somebody empties a table; a copy is recovered to the second before, and a last drill
measures what would be lost if the source were lost now. At the end retention shows what it would
delete in five weeks, and deletes nothing.
"""

import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from local import stack, stack_directory
from local.configuration import DATABASE
from local.demo_guard import catch_a_bad_rule, rehearse_retention
from local.demo_printed import print_report
from local.demo_progress import Steps
from local.demo_report import summarise
from local.demo_rescue import await_archived, rescue
from local.demo_verdict import INCREMENTALS, Played, beside_full
from local.demo_watch import (
    Stage,
    ask_for_incremental,
    await_backup,
    await_drill,
    await_proof,
    await_verification,
    scheduled_full,
)
from local.document_database.load import load
from local.document_database.mistake import empty_by_mistake
from local.document_database.workload import changing
from local.stack_directory import StackDirectory
from shared.errors import PgkeepError

# Nobody wants to wait a minute for a timer to tick.
SCHEDULES = {
    "PGKEEP_DISPATCH_SCHEDULE": "*/2 * * * * *",
    "PGKEEP_FRESHNESS_SCHEDULE": "*/5 * * * * *",
    "PGKEEP_RECONCILE_SCHEDULE": "*/5 * * * * *",
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
        label = _back_up_chain(stage, steps, played)
        with steps.step("a bad lifecycle rule is caught") as step:
            played.caught = catch_a_bad_rule(stage, directory.account_policies, time.monotonic)
            step.update(1, 1, f"after {played.caught.opened_after_s:.1f} s")
        with steps.step("HTTP: drill of the chain") as step:
            played.drills.append(await_drill(stage, step, label))
            played.catalogued[label] = await_proof(stage, label)
        with steps.step("somebody empties a table") as step:
            mistake = empty_by_mistake(database)
            step.update(1, 1, f"{mistake.lost.rows} rows gone")
        with steps.step("WAL of that instant is stored") as step:
            await_archived(stage, step, mistake.at)
        with steps.step("recover to the second before"):
            played.rescue = rescue(directory, servers, mistake)
        with steps.step("HTTP: drill to the latest") as step:
            played.drills.append(await_drill(stage, step, label, latest=True))
        with steps.step("retention in five weeks, dry run") as step:
            played.rehearsal = rehearse_retention(servers.config)
            step.update(1, 1, f"{len(played.rehearsal.goes)} backups would go")


def _back_up_chain(stage: Stage, steps: Steps, played: Played) -> str:
    """A full and its incrementals, each verified before the next: the label of the newest."""
    with steps.step("timer: full backup") as step:
        label = await_backup(stage, step, scheduled_full())
        played.backups.append(stage.read_backup(label))
    with steps.step("blob event: verify, catalogue") as step:
        played.catalogued[label] = await_verification(stage, step, label)
    for number in range(1, INCREMENTALS + 1):
        with steps.step(f"HTTP: incremental {number}, verified") as step:
            label = await_backup(stage, step, ask_for_incremental(stage))
            played.backups.append(stage.read_backup(label))
            played.catalogued[label] = await_verification(stage, step, label)
            remembered = stage.links_remembered(label)
            step.update(1, 1, f"{beside_full(played.backups)}, links remembered: {remembered}")
    return label
