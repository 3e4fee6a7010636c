"""Importing the function app opens nothing and pulls in no heavy library."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_importing_the_app_loads_no_storage_sdk_no_driver_and_no_telemetry() -> None:
    probe = (
        "import sys, function_app; heavy = {'azure.storage.blob', 'psycopg', 'azure.monitor', "
        "'azure.identity'}; print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
