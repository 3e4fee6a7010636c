"""What a Bicep template would deploy: its resources with their values, modules and all.

What only Azure knows becomes text that says where it comes from, such as
`id-writer.properties.principalId`: so two uses of one thing are equal, and two things are not.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tree_sitter import Node

from tests.harness.bicep_functions import FUNCTIONS, UNKNOWN
from tests.harness.bicep_syntax import (
    Declaration,
    SyntaxFault,
    Template,
    load,
    named,
    text_of,
    unescaped,
)

Read = Callable[[Path], Template]


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource; `existing` ones are only referred to. `module` is the file's name."""

    symbol: str
    type: str
    version: str
    body: Mapping[str, Any]
    existing: bool
    module: str

    @property
    def name(self) -> str:
        """With the names of its parents, as `account/default/full`."""
        parent = self.body.get("parent")
        own = str(self.body["name"])
        return f"{parent.name}/{own}" if isinstance(parent, Resource) else own

    @property
    def id(self) -> str:
        return f"{self.type}:{self.name}"

    def get(self, path: str, default: object = None) -> Any:
        """The value at a dotted path below the body."""
        value: Any = self.body
        for part in path.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return default
            value = value[part]
        return value


@dataclass(frozen=True, slots=True)
class Deployment:
    """What one template makes, and all of its modules below it."""

    resources: tuple[Resource, ...]
    outputs: Mapping[str, Any]

    def of(self, kind: str) -> list[Resource]:
        """Resources of one type that are made here, not only referred to."""
        return [one for one in self.resources if one.type == kind and not one.existing]

    def one(self, kind: str) -> Resource:
        [found] = self.of(kind)
        return found


def deploy(path: Path, parameters: Mapping[str, object], read: Read = load) -> Deployment:
    """The template of this file, with its defaults where no value is given.

    `read` gives the templates; a test may give others. Raises SyntaxFault for an unknown parameter,
    or one that is missing.
    """
    template, name = read(path), path.name
    declared = {one.name for one in template.of("parameter")}
    if unknown := parameters.keys() - declared:
        raise SyntaxFault(f"{name} has no parameters {sorted(unknown)}")
    scope = _Scope(template, name, parameters, read)
    for kind in ("resource", "module"):
        for one in template.of(kind):
            scope.symbol(one.name)
    outputs = {one.name: scope.value(_given(one)) for one in template.of("output")}
    return Deployment(tuple(scope.resources), outputs)


def _given(one: Declaration) -> Node:
    if one.value is None:
        raise SyntaxFault(f"{one.name} has no value")
    return one.value


@dataclass
class _Scope:
    """Symbols of one template, evaluated when they are first asked for."""

    template: Template
    name: str
    parameters: Mapping[str, object]
    read: Read
    resources: list[Resource] = field(default_factory=list)
    _known: dict[str, Any] = field(default_factory=dict)
    _declared: dict[str, Declaration] = field(init=False)

    def __post_init__(self) -> None:
        declared = self.template.declarations
        self._declared = {one.name: one for one in declared if one.kind != "output"}

    def symbol(self, name: str) -> Any:
        if name not in self._known:
            if name not in self._declared:
                raise SyntaxFault(f"{self.name} has no symbol {name}")
            self._known[name] = self._evaluated(self._declared[name])
        return self._known[name]

    def value(self, node: Node, local: Mapping[str, Any] | None = None) -> Any:
        return _Evaluation(self, local or {}).value(node)

    def _evaluated(self, one: Declaration) -> Any:
        match one.kind:
            case "parameter":
                if one.name in self.parameters:
                    return self.parameters[one.name]
                return self.value(_given(one))
            case "variable":
                return self.value(_given(one))
            case "resource":
                return self._made(one, partial(self._resource, one))
            case "module":
                return self._made(one, partial(self._module, one))
        raise SyntaxFault(f"{one.kind} {one.name} is more than this evaluates")

    def _made(self, one: Declaration, make: Callable[[Mapping[str, Any]], Any]) -> Any:
        """One of them, a list of them for a loop, None where a condition is false."""
        return _Evaluation(self, {}).made(_given(one), make)

    def _resource(self, one: Declaration, body: Mapping[str, Any]) -> Resource:
        kind, _, version = one.target.partition("@")
        made = Resource(one.name, kind, version, body, one.existing, self.name)
        self.resources.append(made)
        return made

    def _module(self, one: Declaration, body: Mapping[str, Any]) -> Mapping[str, Any]:
        path = self.template.folder / one.target
        made = deploy(path, body.get("params", {}), self.read)
        self.resources += made.resources
        return {"outputs": made.outputs, "name": body.get("name")}


@dataclass(frozen=True)
class _Evaluation:
    """Expressions of one scope, with the variables of the loops around them."""

    scope: _Scope
    local: Mapping[str, Any]

    def value(self, node: Node) -> Any:
        evaluate_node = getattr(self, f"_{node.type}", None)
        if evaluate_node is None:
            raise SyntaxFault(f"line {node.start_point[0] + 1}: {node.type} is not evaluated")
        return evaluate_node(node)

    def made(self, node: Node, make: Callable[[Mapping[str, Any]], Any]) -> Any:
        if node.type == "for_statement":
            return [inner.made(body, make) for inner, body in self._loop(node) if inner.holds(body)]
        if node.type == "if_statement":
            condition, body = named(node)
            return make(self.value(body)) if self.value(condition) else None
        return make(self.value(node))

    def holds(self, node: Node) -> bool:
        return node.type != "if_statement" or bool(self.value(named(node)[0]))

    def _loop(self, node: Node) -> Iterator[tuple["_Evaluation", Node]]:
        variables, over, body = named(node)
        names = [text_of(one) for one in named(variables)] or [text_of(variables)]
        for index, item in enumerate(self.value(over)):
            local = dict(zip(names, (item, index), strict=False))
            yield _Evaluation(self.scope, {**self.local, **local}), body

    def _for_statement(self, node: Node) -> list[Any]:
        return [inner.value(body) for inner, body in self._loop(node)]

    def _identifier(self, node: Node) -> Any:
        name = text_of(node)
        return self.local[name] if name in self.local else self.scope.symbol(name)

    def _string(self, node: Node) -> str:
        parts = []
        for part in named(node):
            match part.type:
                case "string_content":
                    parts.append(text_of(part))
                case "escape_sequence":
                    parts.append(unescaped(part))
                case _:
                    parts.append(str(self.value(named(part)[0])))
        return "".join(parts)

    def _number(self, node: Node) -> int:
        return int(text_of(node))

    def _boolean(self, node: Node) -> bool:
        return text_of(node) == "true"

    def _null(self, _: Node) -> None:
        return None

    def _array(self, node: Node) -> list[Any]:
        items = named(node)
        if len(items) == 1 and items[0].type == "for_statement":
            return self._for_statement(items[0])
        return [self.value(item) for item in items]

    def _object(self, node: Node) -> dict[str, Any]:
        found = {}
        for pair in named(node):
            key, value = named(pair)
            name = text_of(key) if key.type == "identifier" else self.value(key)
            found[name] = self.value(value)
        return found

    def _parenthesized_expression(self, node: Node) -> Any:
        return self.value(named(node)[0])

    def _ternary_expression(self, node: Node) -> Any:
        condition, then, otherwise = named(node)
        return self.value(then if self.value(condition) else otherwise)

    def _unary_expression(self, node: Node) -> Any:
        operand = self.value(named(node)[0])
        return not operand if node.children[0].type == "!" else -operand

    def _binary_expression(self, node: Node) -> Any:
        left, right = named(node)
        operator = text_of(next(one for one in node.children if not one.is_named))
        first = self.value(left)
        match operator:
            case "&&":
                return bool(first) and bool(self.value(right))
            case "||":
                return bool(first) or bool(self.value(right))
            case "??":
                return self.value(right) if first is None else first
        return _OPERATORS[operator](first, self.value(right))

    def _member_expression(self, node: Node) -> Any:
        owner, member = named(node)
        return _member(self.value(owner), text_of(member))

    def _subscript_expression(self, node: Node) -> Any:
        owner, index = named(node)
        return self.value(owner)[self.value(index)]

    def _call_expression(self, node: Node) -> Any:
        name, arguments = named(node)
        values = [self.value(argument) for argument in named(arguments)]
        return FUNCTIONS.get(text_of(name), partial(UNKNOWN, text_of(name)))(*values)


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _member(owner: object, name: str) -> Any:
    match owner:
        case Resource() if name == "name":
            return owner.body["name"]  # a child's is its own, without its parents'
        case Resource() if name in {"id", "type"}:
            return getattr(owner, name)
        case Resource():
            return f"{owner.name}.{name}"
        case str():
            return f"{owner}.{name}"
        case Mapping() if name in owner:
            return owner[name]
    raise SyntaxFault(f"{owner!r} has no member {name}")
