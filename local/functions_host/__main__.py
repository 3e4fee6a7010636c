"""`python -m local.functions_host`: host one app in a process of its own, until SIGTERM.

The settings file is a local.settings.json; its values become environment variables of the app,
as they do in Azure. When everything listens, the address is written to `STATE/url`.
"""

import argparse
import json
import logging
import os
import signal
import threading
from pathlib import Path

from local.functions_host.host import running_host

# A run that asks a storage that is gone goes on asking for minutes. Azure's host waits no longer
# than its grace period either.
_GRACE_S = 15


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    settings: dict[str, str] = json.loads(arguments.settings.read_text("utf-8"))["Values"]
    os.environ.update(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with running_host(arguments.app, settings, arguments.state, arguments.port) as address:
        (arguments.state / "url").write_text(address.url, "ascii")
        stop.wait()
        signal.alarm(_GRACE_S)  # unless all is over by then, the process ends by SIGALRM


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.functions_host")
    parser.add_argument("--app", type=Path, required=True, help="folder of function_app.py")
    parser.add_argument("--settings", type=Path, required=True, help="local.settings.json")
    parser.add_argument("--state", type=Path, required=True, help="receipts, timer status, key")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    return parser.parse_args()


if __name__ == "__main__":
    main()
