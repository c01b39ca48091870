"""Keys from the fields of a pydantic model: parameters of a stage, keys of a recipe, fields of a profile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from wsolpipe.keys.key import Key, describe_fields
from wsolpipe.keys.kinds import Kind, Named, NamesFile, Unit
from wsolpipe.keys.words import parse_value

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
M = TypeVar("M", bound=BaseModel)
_PLAIN = {int: "integer", float: "number", str: "text", bool: "true or false", Any: "any value"}


def argument_of(declared: type, bound: type[M]) -> type[M] | None:
    """Class that `declared` gives its generic base, such as the parameters of a stage in ``Stage[MyParams]``."""
    given = (each for base in vars(declared).get("__orig_bases__", ()) for each in get_args(base))
    return next((each for each in given if isinstance(each, type) and issubclass(each, bound)), None)


def spell_none(model: type[BaseModel], given: Any) -> Any:
    """Give a key that takes the word ``none`` and no null that word, where ``key=none`` was read as null."""
    if not isinstance(given, dict):
        return given
    words = _take_none(model)
    return {name: "none" if value is None and name in words else value for name, value in given.items()}


@cache
def _take_none(model: type[BaseModel]) -> frozenset[str]:
    """Keys of a model that take the word ``none``."""
    return frozenset(name for name, info in model.model_fields.items() if "none" in get_args(info.annotation))


def keys_of(model: type[BaseModel], defaults: Mapping[str, Any] | None = None, *, prefix: str = "") -> tuple[Key, ...]:
    """Keys of a model's fields; a field that is a model itself gives the keys ``field.inner``.

    The section Attributes of the model's docstring says what each means, or the ``description`` of its `Field`.

    Parameters
    ----------
    defaults : mapping, optional
        Values that go over the model's own defaults.
    prefix : str
        Goes before each name, such as ``cls_maps.``.
    """
    given, meanings = defaults or {}, describe_fields(model)
    keys: list[Key] = []
    for name, info in model.model_fields.items():
        own = None if info.is_required() or info.default_factory else info.default  # a made default differs by machine
        default = given.get(name, own)
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            values = default if isinstance(default, dict) else {}
            keys += keys_of(inner, values, prefix=f"{prefix}{name}.")
            continue
        unit = next((item.name for item in info.metadata if isinstance(item, Unit)), "")
        kind = kind_of(info.annotation, info.metadata)
        meaning, heading = meanings.get(name, ("", ""))
        keys.append(Key(kind, default, unit, "", f"{prefix}{name}", info.description or meaning, heading))
    return tuple(keys)


def kind_of(annotation: Any, metadata: Iterable[Any] = ()) -> Kind:
    """Kind of a field: for descriptions and completion; the model itself checks values."""
    marks = list(metadata)
    while get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        marks += inner
    marks += [bound for mark in marks if isinstance(mark, FieldInfo) for bound in mark.metadata]
    null = False
    choices: tuple[str, ...] = ()
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        kinds = [kind_of(item, marks) for item in arguments if item is not NoneType]
        null = NoneType in arguments
        name = " or ".join(kind.name for kind in kinds)
        choices = tuple(text for kind in kinds for text in (*kind.choices, *kind.offers))
    elif origin is Literal:
        choices = tuple(str(item) for item in arguments)
        name = " or ".join((", ".join(choices[:-1]), choices[-1])) if len(choices) > 1 else choices[0]
    elif origin is tuple or origin is list:
        each = kind_of(arguments[0])
        count = "" if Ellipsis in arguments or origin is list else f"{len(arguments)} "
        name, choices = f"list of {count}{each.name}s", (*each.choices, *each.offers)
    elif origin is dict or annotation is dict:
        name = "mapping"
    elif named := [mark.registry for mark in marks if isinstance(mark, Named)]:
        choices = tuple(named[0].names())
        name = f"{', '.join(choices[:-1])} or {choices[-1]}"
    else:
        name = _PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))
        name += _bounds(marks)
        choices = ("true", "false") if annotation is bool else ()
    return Kind(
        f"{name} or null" if null else name,
        parse_value,
        offers=(*choices, "null") if null and choices else choices,
        files=any(isinstance(item, NamesFile) for item in marks),
        null=null,
    )


def _bounds(marks: Iterable[Any]) -> str:
    """Bounds that annotations give, as text."""
    bounds = [
        f"{words} {getattr(mark, bound):g}"
        for mark in marks
        for bound, words in _BOUNDS.items()
        if isinstance(getattr(mark, bound, None), (int, float))
    ]
    return "".join(f", {item}" for item in dict.fromkeys(bounds))
