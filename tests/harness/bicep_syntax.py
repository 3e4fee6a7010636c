"""Bicep's syntax, as far as infra/ uses it: declarations by name, with their syntax trees.

The compiler itself is in no package that can be had here; tree-sitter-bicep has the grammar.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser

_PARSER: Final = Parser(Language(tree_sitter_bicep.language()))
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}


class SyntaxFault(AssertionError):
    """Text that is no Bicep, or more of it than infra/ uses."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A parameter, variable, resource, module or output.

    `target` is a resource's type with its version, or a module's path. `value` is None for a
    parameter without a default.
    """

    kind: str
    name: str
    target: str
    value: Node | None
    existing: bool
    decorators: Mapping[str, Node | None]


@dataclass(frozen=True, slots=True)
class Template:
    """One file; `folder` is where paths of its modules begin."""

    folder: Path
    declarations: tuple[Declaration, ...]

    def of(self, kind: str) -> tuple[Declaration, ...]:
        return tuple(one for one in self.declarations if one.kind == kind)


@cache
def load(path: Path) -> Template:
    return parse(path.read_text("utf-8"), path.parent)


def parse(text: str, folder: Path = Path()) -> Template:
    """Raises SyntaxFault with the line of the first thing that is no Bicep."""
    root = _PARSER.parse(text.encode()).root_node
    if root.has_error:
        raise SyntaxFault(f"line {_first_error(root).start_point[0] + 1} is no bicep")
    return Template(folder, tuple(_declarations(root)))


def text_of(node: Node) -> str:
    return (node.text or b"").decode()


def named(node: Node) -> list[Node]:
    return [child for child in node.named_children if child.type != "comment"]


def unescaped(node: Node) -> str:
    """What an escape sequence in a string stands for."""
    after = text_of(node)[1:]
    return _ESCAPES.get(after, after)


def _first_error(node: Node) -> Node:
    for child in node.children:
        if child.has_error:
            return _first_error(child)
    return node


def _declarations(root: Node) -> Iterator[Declaration]:
    decorators: dict[str, Node | None] = {}
    for node in named(root):
        if node.type == "decorators":
            decorators |= dict(_decorator(one) for one in named(node))
        elif node.type.endswith("_declaration"):
            yield _declaration(node, decorators)
            decorators = {}


def _decorator(node: Node) -> tuple[str, Node | None]:
    call = named(node)[0]
    name, arguments = named(call)
    return text_of(name), next(iter(named(arguments)), None)


def _declaration(node: Node, decorators: Mapping[str, Node | None]) -> Declaration:
    kind = node.type.removesuffix("_declaration")
    parts = named(node)
    name, rest = text_of(parts[0]), parts[1:]
    target = ""
    if kind in {"resource", "module"}:
        target = text_of(rest.pop(0)).strip("'")
    existing = any(child.type == "existing" for child in node.children)
    values = [part for part in rest if part.type != "type"]
    value = values[-1] if values else None
    return Declaration(kind, name, target, value, existing, dict(decorators))
