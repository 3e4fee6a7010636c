"""settings.md: every section of pgkeep.toml and every table inside one, with their keys."""
# ruff: noqa: ANN401 - an annotation is any object

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AwareDatetime, BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from scripts.reference_pages.errors import sentence
from shared.domain.field_types import Cron
from shared.settings import Settings

Model = type[BaseModel]

_NAMES: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "true or false",
    Path: "path",
    SecretStr: "secret string",
    AwareDatetime: "time with offset",
    Cron: "cron expression",
}


def body() -> Iterator[str]:
    """A heading per section or table, a row per key."""
    for title, model in tables():
        yield f"## {title}"
        yield ""
        yield sentence(model)
        yield ""
        yield "| key | type | default | meaning |"
        yield "|---|---|---|---|"
        for key, field in _own_first(model):
            meaning = (field.description or _implied(key)).replace("<", "\\<")
            yield f"| `{key}` | {_type(field)} | {_default(key, field)} | {meaning} |"
        yield ""


def _own_first(model: Model) -> list[tuple[str, FieldInfo]]:
    """What a table shares with others, as a cluster does with policies, comes behind."""
    return sorted(model.model_fields.items(), key=lambda item: item[0] not in model.__annotations__)


def tables() -> list[tuple[str, Model]]:
    """Title and model: the top level, its sections, then what is used inside these."""
    sections: dict[Model, str] = {}
    for key, field in Settings.model_fields.items():
        for model in _models(field.annotation):
            sections.setdefault(model, _section_title(key, field, model))
    inner = [model for model in _reachable(Settings) if model not in sections]
    return [
        ("Top level", Settings),
        *((title, model) for model, title in sections.items()),
        *((f"Table {model.__name__}", model) for model in inner),
    ]


def _section_title(key: str, field: FieldInfo, model: Model) -> str:
    header = f"`[[{key}]]`" if get_origin(field.annotation) is tuple else f"`[{key}]`"
    several = len(_models(field.annotation)) > 1
    return f"{header} of type {_tag(model)}" if several else header


def _reachable(model: Model) -> list[Model]:
    found: dict[Model, None] = {}
    for field in model.model_fields.values():
        for inner in _models(field.annotation):
            found |= dict.fromkeys([inner, *_reachable(inner)])
    return list(found)


def _models(annotation: Any) -> list[Model]:
    """The tables that a key may hold, seen through lists, options and unions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in {Annotated, tuple, Mapping, Union, UnionType}:
        return [model for argument in get_args(annotation) for model in _models(argument)]
    return []


def _tag(model: Model) -> str:
    return str(get_args(model.model_fields["type"].annotation)[0])


def _type(field: FieldInfo) -> str:
    words, least, most = _words(field.annotation), _limit(field, "ge"), _limit(field, "le")
    if get_args(Cron)[1] in field.metadata:
        return _NAMES[Cron]
    above = _limit(field, "gt")
    if above is not None:
        return f"{words} above {above}" + ("" if most is None else f", at most {most}")
    if most is not None:
        return f"{words}, {least} to {most}"
    return words if least is None else f"{words}, at least {least}"


def _limit(field: FieldInfo, name: str) -> int | None:
    limits = (getattr(item, name, None) for item in field.metadata)
    return next((limit for limit in limits if limit is not None), None)


def _words(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _NAMES:
        return _NAMES[annotation]
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list of {_words(arguments[0])}"
    if origin is Mapping:
        return f"tables by name, each {_words(arguments[1])}"
    if origin in {Annotated, Union, UnionType}:
        alternatives = arguments[:1] if origin is Annotated else arguments
        words = (_words(item) for item in alternatives if item is not type(None))
        return " or ".join(dict.fromkeys(words))
    return _link(annotation)


def _link(model: Model) -> str:
    title = next(title for title, known in tables() if known is model)
    slug = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    text = title.strip("`[]").replace("]` of type", " of type")
    return f"[{text}](#{slug.replace(' ', '-')})"


def _implied(key: str) -> str:
    return "which kind of table this is" if key == "type" else "see there"


def _default(key: str, field: FieldInfo) -> str:
    if key == "type":  # it tells the alternatives apart, so it is never implied
        return "required"
    if field.default_factory is not None:
        return "its own defaults"
    if field.default is PydanticUndefined:
        return "required"
    return "none" if field.default in (None, ()) else f"`{field.default}`"
