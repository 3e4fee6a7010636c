"""Following a settings file: what is held, when it is looked at, and what trouble does to it."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier, Event

import pytest

from functions.followed_settings import LOOKS_EVERY_S, FollowedSettings, SettingsSource
from functions.settings_marks import settings_mark
from shared.errors import CatalogueUnavailable, SettingsInvalid
from shared.settings import Settings, load
from tests.harness.control_plane import Clock

PLAIN = '[repository]\ntype = "directory"\npath = "/nowhere"\n'
LIMITED = f"{PLAIN}\n[fleet]\nper_host = 7\n"


@dataclass
class Desk:
    """A file, and who follows it; `made` are the settings that something was made of."""

    file: Path
    ticks: float = 100.0
    clock: Clock = field(default_factory=Clock)
    made: list[Settings] = field(default_factory=list)
    looks: int = 0
    refusal: Exception | None = None
    followed: FollowedSettings[Settings] = field(init=False)

    def __post_init__(self) -> None:
        mark = settings_mark({"PGKEEP_CONFIG": str(self.file)})

        def look() -> str:
            self.looks += 1
            return mark()

        source = SettingsSource(look, lambda: load(self.file, {}))
        self.followed = FollowedSettings(source, self.make, self.clock, lambda: self.ticks)

    def make(self, settings: Settings) -> Settings:
        if self.refusal is not None:
            raise self.refusal
        self.made.append(settings)
        return settings

    def write(self, text: str) -> None:
        """As a deployment does: the whole file replaced at once."""
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.replace(self.file)

    def later(self) -> Settings:
        self.ticks += LOOKS_EVERY_S
        return self.followed.current()


@pytest.fixture
def desk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Desk:
    caplog.set_level(logging.INFO, "pgkeep")
    file = tmp_path / "pgkeep.toml"
    file.write_text(PLAIN)
    return Desk(file)


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


def test_a_changed_file_is_followed_with_the_next_look_and_not_before(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    first = desk.followed.current()
    desk.write(LIMITED)
    desk.ticks += LOOKS_EVERY_S - 1
    assert desk.followed.current() is first
    desk.ticks += 1
    assert desk.followed.current().fleet.per_host == 7
    assert first.fleet.per_host != 7
    (told,) = caplog.records
    assert (told.message, told.fields["sections"]) == ("settings-followed", ["fleet"])  # type: ignore[attr-defined]


def test_an_unchanged_file_costs_one_look_an_interval_and_nothing_is_made(desk: Desk) -> None:
    for _ in range(5):
        desk.later()
        desk.followed.current()
    assert (desk.looks, len(desk.made)) == (5, 1)


def test_a_file_that_says_the_same_in_other_words_replaces_nothing(desk: Desk) -> None:
    first = desk.followed.current()
    desk.write(f"# The same.\n{PLAIN}")
    assert desk.later() is first
    assert desk.later() is first
    assert len(desk.made) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{PLAIN}\n[fleet]\nper_host = 'many'\n", "line 6: fleet.per_host"),
        (f"{PLAIN}\n[fleet\n", "line 5"),
        ("", "repository"),
    ],
)
def test_an_invalid_file_changes_nothing_is_told_once_and_the_next_valid_one_is_followed(
    desk: Desk, caplog: pytest.LogCaptureFixture, text: str, says: str
) -> None:
    first = desk.followed.current()
    desk.write(text)
    since = desk.clock()
    for _ in range(3):
        assert desk.later() is first
        desk.clock.advance(minutes=1)
    trouble = desk.followed.trouble()
    assert trouble is not None
    assert (trouble.code, trouble.since, trouble.passing) == ("settings-invalid", since, False)
    assert says in trouble.fact
    assert events(caplog) == ["settings-not-followed"]
    desk.write(LIMITED)
    assert desk.later().fleet.per_host == 7
    assert desk.followed.trouble() is None


def test_a_file_that_vanished_is_trouble_until_it_is_back_as_it_was(desk: Desk) -> None:
    first = desk.followed.current()
    away = desk.file.rename(desk.file.with_suffix(".away"))
    assert desk.later() is first
    trouble = desk.followed.trouble()
    assert trouble is not None
    assert str(desk.file) in trouble.fact
    away.rename(desk.file)
    assert desk.later() is first
    assert desk.followed.trouble() is None


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (CatalogueUnavailable("nobody answers"), "catalogue-unavailable"),
        (ZeroDivisionError("a defect"), "internal"),
    ],
)
def test_what_cannot_be_made_of_valid_settings_is_tried_again_with_each_look(
    desk: Desk, refusal: Exception, code: str
) -> None:
    first = desk.followed.current()
    desk.write(LIMITED)
    desk.refusal = refusal
    assert desk.later() is first
    trouble = desk.followed.trouble()
    assert trouble is not None
    assert (trouble.code, trouble.passing) == (code, isinstance(refusal, CatalogueUnavailable))
    desk.refusal = None
    assert desk.later().fleet.per_host == 7


def test_the_first_failure_is_raised_and_the_next_call_tries_anew(desk: Desk) -> None:
    desk.write("profile = 'none'")
    with pytest.raises(SettingsInvalid):
        desk.followed.current()
    desk.write(PLAIN)
    assert desk.followed.current() is desk.made[0]


def test_others_go_on_with_what_is_held_while_one_looks(desk: Desk) -> None:
    first = desk.followed.current()
    desk.write(LIMITED)
    inside, leave = Barrier(2), Event()
    make = desk.followed._make

    def slowly(settings: Settings) -> Settings:
        inside.wait(10)
        assert leave.wait(10)
        return make(settings)

    desk.followed._make = slowly
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(desk.later)
        inside.wait(10)
        desk.ticks += LOOKS_EVERY_S
        assert desk.followed.current() is first
        leave.set()
        assert looking.result(10).fleet.per_host == 7


def test_without_a_document_there_is_nothing_to_follow() -> None:
    mark = settings_mark({})
    assert mark() == mark() == ""
