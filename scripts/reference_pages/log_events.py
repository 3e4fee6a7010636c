"""log-events.md: every name that is given to log_event, with its fields, found in the source."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from scripts.reference_pages.errors import PACKAGES

ROOT = Path(__file__).resolve().parents[2]

Places = Mapping[str, set[str]]
"""Fields by the module that writes them."""


def body() -> Iterator[str]:
    """A heading per event."""
    for name, places in log_events().items():
        yield f"### `{name}`"
        yield ""
        for place, fields in places.items():
            listed = ", ".join(f"`{field}`" for field in sorted(fields)) or "no fields"
            yield f"- `{place}`: {listed}"
        yield ""


def log_events() -> Mapping[str, Places]:
    """In order of the names. Raises ValueError for a name that is not spelt out at the call."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in product_files():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "log_event":
                name = ast.literal_eval(node.args[0])
                place = found[name][str(path.relative_to(ROOT))]
                place |= {word.arg for word in node.keywords if word.arg} - {"level"}
    return dict(sorted(found.items()))


def product_files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
