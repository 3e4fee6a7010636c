"""The control part as a whole."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from local.benchmark.control.rebuild import measure_rebuild
from local.benchmark.control.report import ControlRow
from local.benchmark.control.tick import measure_ticks
from local.unprivileged import make_reachable_directory, server_account


def run_control_contest(
    programs: Path, runs: int, say: Callable[[str], None]
) -> Iterator[ControlRow]:
    """Leaves nothing behind."""
    with TemporaryDirectory(prefix="pgkeep-control-") as folder:
        place = Path(folder)
        make_reachable_directory(place, server_account())
        say("dispatcher over 10,000 clusters …")
        yield from measure_ticks(programs, place / "fleet", runs)
        say("catalogue made anew …")
        rebuilt = place / "rebuild"
        rebuilt.mkdir()
        make_reachable_directory(rebuilt, server_account())
        yield from measure_rebuild(programs, rebuilt, runs)
