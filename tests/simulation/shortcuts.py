"""What makes a simulation quick and repeatable, and changes nothing that it could find out.

Everything runs in one thread: whoever makes a ThreadPoolExecutor gets one that does each thing when
it is asked to, so that the same seed does the same. A signed document is authenticated when it is
read for the first time: what is read is a function of its bytes and of the keys that are pinned.
The schedules are compared with the agenda's by a digest that is computed once: no settings change
while a simulation runs.
"""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

from pydantic import BaseModel

from functions.timer_dispatch import schedules_digest
from shared.event_log import LOGGER
from shared.repository.signatures import PinnedKeys, read_signed
from shared.settings import Settings

_OURS: Final = ("functions.", "shared.", "worker.commands.", "tests.simulation.")


class InOneThread(Executor):
    """See concurrent.futures.Executor; what it was asked for is done when `submit` returns."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - for whoever asks for the result
            done.set_exception(error)
        return done


class Reader:
    """`read_signed` of one fleet; a document that is refused is refused anew each time."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, type[BaseModel]], BaseModel] = {}

    def __call__(self, raw: bytes, model: type[BaseModel], pinned: PinnedKeys) -> BaseModel:
        key = (raw, model)
        if key not in self._known:
            self._known[key] = read_signed(raw, model, pinned)
        return self._known[key]


class Digest:
    """`schedules_digest` of the settings that it is asked about first."""

    def __init__(self) -> None:
        self._known: str | None = None

    def __call__(self, settings: Settings) -> str:
        self._known = self._known or schedules_digest(settings)
        return self._known


@contextmanager
def shortcuts() -> Iterator[None]:
    quick: tuple[tuple[object, object], ...] = (
        (ThreadPoolExecutor, InOneThread),
        (read_signed, Reader()),
        (schedules_digest, Digest()),
    )
    with ExitStack() as patches:
        patches.enter_context(patch.object(LOGGER, "disabled", True))  # a year of it helps nobody
        for known, instead in quick:
            for place in list(_places_of(known)):
                patches.enter_context(patch.object(*place, instead))
        yield


def _places_of(value: object) -> Iterator[tuple[object, str]]:
    """Modules of ours that have imported it, and as what; but for this one."""
    for name, module in sys.modules.items():
        if name.startswith(_OURS) and name != __name__:
            yield from ((module, own) for own, held in vars(module).items() if held is value)
