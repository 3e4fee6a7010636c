"""As much of Kusto's query language as the alert rules use, evaluated over rows in memory.

`where`, `extend` and `summarize` with the functions below; anything else is refused, so
that a query never means less here than there: https://learn.microsoft.com/kusto/query/.
"""

import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

Row = Mapping[str, Any]
Expression = Callable[[Row], Any]
Aggregate = Callable[[Sequence[Row]], dict[str, Any]]
T = TypeVar("T")

_TOKEN: Final = re.compile(
    r'\s*(?:(?P<string>"[^"\\]*")|(?P<span>\d+(?:d|h|m|s)\b)|(?P<number>\d+(?:\.\d+)?)'
    r"|(?P<word>!in\b|[A-Za-z_]\w*)|(?P<sign>[!=<>]=|[|(),.=<>]))"
)
_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


class NotKusto(ValueError):
    """A query that this subset, and maybe Kusto, does not understand."""


@dataclass(frozen=True)
class _Dynamic:
    """A member of a dynamic column, to be made a string before use; None where it is absent."""

    value: str | None


def run(query: str, tables: Mapping[str, Iterable[Row]], now: datetime) -> list[dict[str, Any]]:
    """The rows that the query answers with. Raises NotKusto."""
    return _Query(_tokens(query), now).answer(tables)


def _tokens(query: str) -> list[str]:
    found, at = [], 0
    while at < len(query.rstrip()):
        match = _TOKEN.match(query, at)
        if match is None:
            raise NotKusto(f"what is {query[at : at + 20]!r}")
        found.append(match[0].strip())
        at = match.end()
    return found


class _Query:
    """A recursive descent over the tokens; each expression becomes a function of a row."""

    def __init__(self, tokens: list[str], now: datetime) -> None:
        self._tokens = tokens
        self._now = now

    def answer(self, tables: Mapping[str, Iterable[Row]]) -> list[dict[str, Any]]:
        rows = [dict(row) for row in tables[self._next()]]
        while self._tokens:
            self._expect("|")
            operator = getattr(self, f"_do_{self._next()}", None)
            if operator is None:
                raise NotKusto(f"operator before {self._tokens[:5]}")
            rows = operator(rows)
        return rows

    def _do_where(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        holds = self._either()
        return [row for row in rows if _bool(holds(row))]

    def _do_extend(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Each of the new columns is made of the old ones alone, as in Kusto."""
        made = dict(self._listed(self._assignment))
        return [row | {name: value(row) for name, value in made.items()} for row in rows]

    def _do_summarize(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Without `by` there is one row also of nothing; with it, there is none."""
        aggregates = self._listed(self._aggregate)
        names = self._listed(self._next) if self._took("by") else []
        groups: dict[tuple[object, ...], list[Row]] = {} if names else {(): []}
        for row in rows:
            groups.setdefault(tuple(row[name] for name in names), []).append(row)
        return [
            dict(ChainMap(dict(zip(names, key, strict=True)), *(one(group) for one in aggregates)))
            for key, group in groups.items()
        ]

    def _aggregate(self) -> Aggregate:
        name = self._next()
        if name == "arg_max":
            return self._arg_max()
        self._expect("=")
        function = self._next()
        arguments = self._arguments()
        match function, arguments:
            case "countif", [holds]:
                return lambda rows: {name: sum(_bool(holds(row)) for row in rows)}
            case (("min" | "max"), [value]):
                pick = {"min": min, "max": max}[function]
                return lambda rows: {name: pick(map(value, rows), default=None)}
        raise NotKusto(f"{function} of {len(arguments)}")

    def _arg_max(self) -> Aggregate:
        self._expect("(")
        columns = self._listed(self._next)
        self._expect(")")

        def newest(rows: Sequence[Row]) -> dict[str, Any]:
            row = max(rows, key=lambda one: one[columns[0]])
            return {name: row[name] for name in columns}

        return newest

    def _assignment(self) -> tuple[str, Expression]:
        name = self._next()
        self._expect("=")
        return name, self._either()

    def _either(self) -> Expression:
        first = self._both()
        if not self._took("or"):
            return first
        second = self._either()
        return lambda row: _bool(first(row)) or _bool(second(row))

    def _both(self) -> Expression:
        first = self._comparison()
        if not self._took("and"):
            return first
        second = self._both()
        return lambda row: _bool(first(row)) and _bool(second(row))

    def _comparison(self) -> Expression:
        left = self._term()
        for words, wanted in (("in", True), ("!in", False)):
            if self._took(words):
                options = self._arguments()
                return lambda row, wanted=wanted: (  # type: ignore[misc]
                    any(_compare("==", left(row), one(row)) for one in options) is wanted
                )
        if not self._tokens or self._tokens[0] not in _COMPARISONS:
            return left
        sign, right = self._next(), self._term()
        return lambda row: _compare(sign, left(row), right(row))

    def _term(self) -> Expression:
        word = self._next()
        if word == "(":
            inner = self._either()
            self._expect(")")
            return inner
        if word[0] == '"':
            return lambda _: word[1:-1]
        if word[0].isdigit():
            value = _literal(word)
            return lambda _: value
        return self._call(word) if self._tokens[:1] == ["("] else self._column(word)

    def _column(self, name: str) -> Expression:
        if not self._took("."):
            return lambda row: row[name]
        member = self._next()
        return lambda row: _Dynamic(row[name].get(member))

    def _call(self, function: str) -> Expression:
        arguments = self._arguments()
        match function, arguments:
            case "tostring", [value]:
                return lambda row: _string(value(row))
            case "ago", [span]:
                return lambda row: self._now - span(row)
            case "case", [*pairs, otherwise] if len(pairs) % 2 == 0:
                return lambda row: _chosen(row, pairs, otherwise)
        raise NotKusto(f"{function} of {len(arguments)}")

    def _arguments(self) -> list[Expression]:
        self._expect("(")
        found = self._listed(self._either)
        self._expect(")")
        return found

    def _listed(self, one: Callable[[], T]) -> list[T]:
        found = [one()]
        while self._took(","):
            found.append(one())
        return found

    def _next(self) -> str:
        if not self._tokens:
            raise NotKusto("the query ends too early")
        return self._tokens.pop(0)

    def _took(self, token: str) -> bool:
        if self._tokens[:1] != [token]:
            return False
        self._tokens.pop(0)
        return True

    def _expect(self, token: str) -> None:
        if not self._took(token):
            raise NotKusto(f"{token} is wanted before {self._tokens[:5]}")


_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _compare(sign: str, left: object, right: object) -> bool:
    """Nothing is greater or less than null."""
    if left is None or right is None:
        return sign == "!=" and left is not right
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if type(left) is not type(right) and not numbers:
        raise NotKusto(f"{left!r} {sign} {right!r}")
    return _COMPARISONS[sign](left, right)


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise NotKusto(f"{value!r} is no condition")
    return value


def _string(value: object) -> str:
    """Of null, the empty text."""
    plain = value.value if isinstance(value, _Dynamic) else value
    return "" if plain is None else str(plain)


def _chosen(row: Row, pairs: Sequence[Expression], otherwise: Expression) -> object:
    for holds, value in zip(pairs[::2], pairs[1::2], strict=True):
        if _bool(holds(row)):
            return value(row)
    return otherwise(row)


def _literal(token: str) -> float | timedelta:
    if token[-1] in _UNITS:
        return timedelta(**{_UNITS[token[-1]]: int(token[:-1])})
    return float(token) if "." in token else int(token)
