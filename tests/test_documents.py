"""The documents against the code: what they name exists, and what exists is named."""

import ast
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from scripts import generate_reference
from scripts.reference_pages import command_line, errors, log_events, settings
from shared.errors import PgkeepError
from shared.settings import Settings, load
from worker import wiring
from worker.commands.services import Progress
from worker.keys.generate import generate_key_set

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
RUNBOOKS = sorted((DOCS / "runbooks").glob("*.md"))
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))

ADR_SECTIONS = [
    "Context",
    "Options weighed",
    "Decision",
    "Consequences",
    "How we would know it was wrong",
]
RUNBOOK_SECTIONS = ["Confirm", "Act", "Verify", "If that fails", "Afterwards"]
CHANGE_KINDS = {"Security", "Removed", "Deprecated", "Added", "Changed", "Fixed"}

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!!)\[[^]\n]*(?:\[[^]]*\][^]\n]*)*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def relative(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", text_of(page))


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for match in _FENCE.finditer(text_of(page)):
        if match["language"] in languages:
            yield textwrap.dedent(match["text"])


def headings(page: Path) -> list[str]:
    return _HEADING.findall(prose(page))


def section(page: Path, title: str) -> str:
    """What stands below the heading, up to the next one of any level."""
    return re.split(rf"^#+ {re.escape(title)}$", text_of(page), flags=re.MULTILINE)[1].split("\n#")[
        0
    ]


# Generated references


@pytest.mark.parametrize("name", [*generate_reference.PAGES, *generate_reference.WHOLE_FILES])
def test_the_reference_is_what_the_code_says(name: str) -> None:
    stale = generate_reference.stale_pages()
    assert name not in stale, generate_reference.difference(name, stale[name])


def test_each_error_has_a_code_of_its_own() -> None:
    codes: dict[str, list[str]] = {}
    for error in errors.error_classes():
        codes.setdefault(error.code, []).append(error.__name__)
    assert {code: names for code, names in codes.items() if len(names) > 1} == {}


def test_each_error_says_what_it_means_and_what_to_do() -> None:
    for error in errors.error_classes():
        assert error.__doc__, error.__name__
        assert error.hint.endswith((".", "?")), f"{error.code}: {error.hint}"
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", error.code), error.code


def test_each_error_verb_and_event_has_its_heading() -> None:
    assert f"`{PgkeepError.code}`" in headings(DOCS / "reference/errors.md")
    for error in errors.error_classes():
        assert f"`{error.code}`" in headings(DOCS / "reference/errors.md")
    for name, _ in command_line.verbs():
        assert f"`{name}`" in headings(DOCS / "reference/cli.md")
    for event in log_events.log_events():
        assert f"`{event}`" in headings(DOCS / "reference/log-events.md")


def test_each_setting_stands_below_the_heading_of_its_table() -> None:
    for title, model in settings.tables():
        rows = section(DOCS / "reference/settings.md", title)
        for key in model.model_fields:
            assert f"\n| `{key}` | " in rows, f"{title}: {key}"


def test_each_verb_and_option_says_what_it_is_for() -> None:
    for name, command in command_line.verbs():
        assert command.help, name
        assert all(parameter.help for parameter in command.params), name


def test_codes_that_are_written_out_are_codes_of_errors() -> None:
    """A report or event with a code that no class has would lead to no heading."""
    known = {error.code for error in errors.error_classes()}
    written = {
        f"{relative(path)}:{node.value.lineno}: {node.value.value}"
        for path in log_events.product_files()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.keyword)
        and node.arg in {"code", "error_code"}
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and node.value.value not in known
    }
    assert written == set()


# What documents and hints promise


def test_hints_name_documents_that_exist() -> None:
    missing = {
        f"{error.code}: {name}"
        for error in errors.error_classes()
        for name in re.findall(r"docs/[\w/.-]+\.md", error.hint)
        if not (ROOT / name).exists()
    }
    assert missing == set()


def test_hints_and_documents_name_verbs_and_options_that_exist() -> None:
    sources = {error.code: _SPAN.findall(error.hint) for error in errors.error_classes()}
    for page in PAGES:
        shell = [line for block in blocks(page, "sh") for line in _commands(block)]
        sources[relative(page)] = [*_SPAN.findall(prose(page)), *shell]
    wrong = {
        f"{source}: {command}"
        for source, commands in sources.items()
        for command in commands
        if command.startswith("pgkeep ") and not _is_a_command(command)
    }
    assert wrong == set()


def _commands(block: str) -> Iterator[str]:
    for line in block.replace("\\\n", " ").splitlines():
        yield from (part.strip() for part in re.split(r"\||;|&&?|(?<!-)\buntil\b", line))


def _is_a_command(text: str) -> bool:
    words = shlex.split(text.partition(" #")[0].replace("…", ""))
    options = {word.partition("=")[0] for word in words if word.startswith("-")}
    if words[1:] and words[1].isupper():  # `pgkeep VERB` stands for all of them
        return True
    return any(
        words[: len(name.split())] == name.split()
        and options <= {option for parameter in command.params for option in parameter.opts}
        for name, command in command_line.verbs()
    )


def test_each_function_is_named_in_the_documents() -> None:
    text = "".join(
        text_of(page)
        for folder in ("reference", "explanation")
        for page in (DOCS / folder).glob("*.md")
    )
    names = [
        path.stem
        for path in (ROOT / "functions").glob("*.py")
        if "blueprint = func.Blueprint()" in path.read_text("utf-8")
    ]
    assert names
    assert [name for name in names if f"`{name}`" not in text] == []


# Links and code blocks


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    dead = [target for target in _targets(page) if not _leads_somewhere(page, target)]
    assert dead == []


def _targets(page: Path) -> list[str]:
    found = [match["target"] for match in _LINK.finditer(prose(page))]
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def _leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = unquote(target).partition("#")
    goal = (page.parent / path).resolve() if path else page
    if not goal.exists() or not goal.is_relative_to(ROOT):
        return False
    return not anchor or anchor in {_slug(heading) for heading in headings(goal)}


def _slug(heading: str) -> str:
    """As GitHub makes anchors: lower case, letters, digits, hyphens and underscores stay."""
    plain = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return "".join(c for c in plain if c.isalnum() or c in " -_").replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_code_blocks_parse(page: Path) -> None:
    for block in blocks(page, "toml"):
        assert tomllib.loads(block), "a fragment without a key shows nothing"
    for block in blocks(page, "python"):
        assert ast.parse(block, relative(page)).body


def example_settings() -> str:
    """The minimal file of the settings reference."""
    marked = text_of(DOCS / "reference/settings.md").split("<!-- example: pgkeep.toml -->\n")[1]
    match = _FENCE.match(marked)
    assert match is not None
    return match["text"]


class _NoProgress:
    def phase(self, name: str) -> None: ...

    def advance(self, done_bytes: int, total_bytes: int) -> None: ...


def test_the_minimal_settings_are_all_that_a_worker_needs(tmp_path: Path) -> None:
    (tmp_path / "pgkeep.toml").write_text(example_settings(), "utf-8")
    generate_key_set(tmp_path / "keys")
    loaded = load(tmp_path / "pgkeep.toml", {})
    assert loaded.profile == "production"
    assert loaded.cluster_named("orders").password_file == tmp_path / "backup_user.passfile"
    progress: Progress = _NoProgress()
    services = wiring.services(loaded, progress)
    assert services.signer is not None
    assert services.signer.key_id in services.pinned
    services.store.close()  # type: ignore[attr-defined] # an Azure store has connections


def test_other_settings_in_documents_are_settings() -> None:
    """Fragments: each section alone is validated within an otherwise minimal file."""
    least = {"repository": {"type": "directory", "path": "."}}
    for page in PAGES:
        for block in blocks(page, "toml"):
            settings = Settings.model_validate(least | tomllib.loads(block))
            assert settings.model_fields_set >= tomllib.loads(block).keys()


# Forms


@pytest.mark.parametrize("page", DECISIONS, ids=relative)
def test_a_decision_has_its_form(page: Path) -> None:
    number = int(page.name.partition("-")[0])
    assert headings(page)[0].startswith(f"{number}. ")
    assert headings(page)[1:] == ADR_SECTIONS
    assert "\nStatus: " in text_of(page)


def test_decisions_are_counted_without_a_gap() -> None:
    numbers = [page.name[:4] for page in DECISIONS]
    assert numbers == [f"{number:04d}" for number in range(1, len(DECISIONS) + 1)]


@pytest.mark.parametrize("page", RUNBOOKS, ids=relative)
def test_a_runbook_has_its_form(page: Path) -> None:
    assert headings(page)[0].lower().replace(" ", "-") == page.stem
    assert headings(page)[1:] == RUNBOOK_SECTIONS
    assert "\n**Impact:** " in text_of(page)
    assert re.search(r"^1\. ", section(page, "Act"), re.MULTILINE)
    assert any(blocks(page, "sh"))


def test_the_changelog_has_an_open_section_of_known_kinds() -> None:
    page = ROOT / "CHANGELOG.md"
    titles = headings(page)
    assert titles[1] == "Unreleased"
    kinds = {title for title in titles[1:] if title[0].isalpha()} - {"Unreleased"}
    assert kinds <= CHANGE_KINDS


def test_the_readme_begins_with_two_commands_and_says_what_is_not_promised() -> None:
    page = ROOT / "README.md"
    commands = [
        line.partition("#")[0].strip()
        for block in blocks(page, "sh")
        for line in block.splitlines()
    ]
    assert commands[:2] == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert all(f"\n{command.split()[1]}:" in makefile for command in commands[:2])
    assert [title for title in headings(page) if title.startswith("What is")] == [
        "What is guaranteed",
        "What is not, in this release",
    ]
    assert text_of(page).count("<!-- benchmark -->") == 1


def test_tests_that_a_document_names_exist() -> None:
    """In `tests/….py`: `test_…`, each name belongs to the file before it."""
    named: set[tuple[str, str]] = set()
    for page in PAGES:
        path = ""
        for span in _SPAN.findall(prose(page)):
            path = span if span.startswith("tests/") else path
            if span.startswith("test_") and path:
                named.add((path, span))
    assert named
    missing = {
        (path, name)
        for path, name in named
        if not (ROOT / path).is_file() or f"def {name}(" not in text_of(ROOT / path)
    }
    assert missing == set()
