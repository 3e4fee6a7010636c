"""A command begins without what only others need."""

import subprocess
import sys

from tests.harness.worker_services import CHECKOUT

OF_SOME_VERBS = ("psycopg", "azure.storage.queue", "worker.commands.backup", "worker.job_runner")


def test_the_parser_comes_without_what_single_verbs_import() -> None:
    program = f"import sys, worker.cli; print(*sys.modules.keys() & {set(OF_SOME_VERBS)})"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_importing_leaves_the_collector_as_it_was() -> None:
    program = "import gc, worker.__main__ as m; m._command_line(); print(gc.isenabled())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"]
