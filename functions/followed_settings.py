"""What was made of the settings, made anew when their document has changed.

A look at the document costs one small request. Whatever goes wrong with a new one, what was made
of the last good one goes on; the trouble is told, and the document looked at again.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Final, Generic, TypeVar

from shared.errors import PgkeepError
from shared.event_log import log_event
from shared.settings import Settings

T = TypeVar("T")

# Half of the minute of timer_dispatch, so that each of its ticks looks, be it a little early.
LOOKS_EVERY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class SettingsTrouble:
    """Why the document as it is now is not followed; `passing`: it may be over by itself."""

    code: str
    fact: str
    since: datetime
    passing: bool


@dataclass(frozen=True, slots=True)
class SettingsSource:
    """`mark` is another one as soon as the document was written anew; `load` reads it whole."""

    mark: Callable[[], str]
    load: Callable[[], Settings]


@dataclass(frozen=True, slots=True)
class _Held(Generic[T]):
    mark: str
    settings: Settings
    made: T


class FollowedSettings(Generic[T]):
    """`current()` for each invocation: it keeps what it got for as long as it runs."""

    def __init__(
        self,
        source: SettingsSource,
        make: Callable[[Settings], T],
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._source, self._make = source, make
        self._clock, self._monotonic = clock, monotonic
        self._looking = Lock()
        self._next_look = 0.0
        self._held: _Held[T] | None = None
        self._trouble: SettingsTrouble | None = None

    def current(self) -> T:
        """Raises what reading the settings and making do, until both went well once."""
        held = self._held
        if held is None:
            return self._begin().made
        if self._monotonic() < self._next_look or not self._looking.acquire(blocking=False):
            return held.made  # the others do not wait for the one that looks
        try:
            return self._look(held).made
        finally:
            self._looking.release()

    def trouble(self) -> SettingsTrouble | None:
        """With the newest look; None when what is held is what the document says."""
        return self._trouble

    def _begin(self) -> _Held[T]:
        """Invocations that begin together each make their own; one of them stays."""
        mark = self._source.mark()
        settings = self._source.load()
        held = _Held(mark, settings, self._make(settings))
        self._held, self._next_look = held, self._monotonic() + LOOKS_EVERY_S
        return held

    def _look(self, held: _Held[T]) -> _Held[T]:
        self._next_look = self._monotonic() + LOOKS_EVERY_S
        try:
            held = self._held = self._followed(held)
        except PgkeepError as error:
            self._stay(error.code, error.fact, passing=error.retryable)
        except Exception as error:  # noqa: BLE001 - whatever a document does, the old one holds
            self._stay(PgkeepError.code, repr(error), passing=False)
        else:
            self._trouble = None
        return held

    def _followed(self, held: _Held[T]) -> _Held[T]:
        # Asked before reading: what is written in between has another mark at the next look.
        mark = self._source.mark()
        if mark == held.mark:
            return held
        settings = self._source.load()
        sections = _differing(held.settings, settings)
        made = self._make(settings) if sections else held.made
        log_event("settings-followed", mark=mark, sections=sections)
        return _Held(mark, settings, made)

    def _stay(self, code: str, fact: str, *, passing: bool) -> None:
        """Told once, however often it is met."""
        before = self._trouble
        if before is not None and (before.code, before.fact) == (code, fact):
            return
        since = self._clock() if before is None else before.since
        self._trouble = SettingsTrouble(code, fact, since, passing)
        log_event("settings-not-followed", level=logging.ERROR, code=code, fact=fact)


def _differing(before: Settings, after: Settings) -> list[str]:
    names = Settings.model_fields
    return [name for name in names if getattr(before, name) != getattr(after, name)]
