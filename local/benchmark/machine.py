"""What it was measured on, and with which versions."""

import platform
from importlib.metadata import version
from pathlib import Path

import psutil

from local import postgres_programs
from local.benchmark.report import Machine
from shared.version import VERSION


def describe_machine(load: float) -> Machine:
    """`load` is the load average from before the benchmark made its own."""
    return Machine(
        processor=_processor(),
        cores=psutil.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=platform.platform(terse=True),
        load_before=round(load, 2),
    )


def versions(programs: Path, peer: str | None) -> dict[str, str]:
    """`peer` is pgBackRest's, None without it."""
    server = postgres_programs.version_of(programs)
    own = {"pgkeep": VERSION, "postgres": server, "python": platform.python_version()}
    packages = {name: version(name) for name in ("zstandard", "cryptography")}
    return own | packages | ({} if peer is None else {"pgbackrest": peer})


def _processor() -> str:
    """As /proc/cpuinfo calls it; platform.processor() is empty on Debian."""
    lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
