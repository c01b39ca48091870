"""Say in the words of a user why a pydantic model refuses a value."""

from __future__ import annotations

import json
from itertools import groupby
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.nearest import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_EXPECTED = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "string": "text", "list": "a list",
    "tuple": "a list", "dict": "a mapping such as {name: value}", "model": "a mapping such as {name: value}",
    "none": "null", "path": "a path", "finite_number": "a finite number", "decimal": "a number",
}  # fmt: skip
"""First word of a pydantic error type -> the kind of value that was expected."""
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"), "greater_than": ("above", "gt"), "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}  # fmt: skip


def explain(item: ErrorDetails | Mapping[str, Any]) -> str:
    """One error of ``ValidationError.errors()`` without its place: ``expected a whole number``, ``must be above 0``."""
    kind, context = str(item["type"]), item.get("ctx") or {}
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"must be {words} {context[name]:g}"
    if kind in {"too_short", "too_long"}:
        bound = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"needs {bound} items"
    if kind == "literal_error":
        return f"expected {context['expected']}"
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "unknown key"
    expected = _EXPECTED.get(kind) or _EXPECTED.get(kind.partition("_")[0])
    if expected is not None:
        return f"expected {expected}"
    return str(item["msg"]).removeprefix("Value error, ")


def _spelled(value: Any) -> str:
    """A value as it is typed."""
    return shorten(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def explain_one(items: Iterable[ErrorDetails]) -> str:
    """The errors of one value without its place; a key of several kinds has an error for each."""
    first, *others = dict.fromkeys(map(explain, items))
    return first + "".join(f" or {text.removeprefix('expected ')}" for text in others)


def explain_all(error: ValidationError, *, values: bool = False, prefix: str = "") -> str:
    """Every error in one line, each with its place.

    Parameters
    ----------
    values : bool
        Show the value that was refused, as ``key=value``.
    prefix : str
        Goes before each place, such as ``cls_maps.``.
    """
    lines = []
    for _, group in groupby(error.errors(), key=lambda item: (item["loc"][:1], repr(item["input"]))):
        items = list(group)
        place = ".".join(str(part) for part in commonprefix([item["loc"] for item in items]))
        text = explain_one(items)
        shown = f"={_spelled(items[0]['input'])}" if values and place and items[0]["type"] != "missing" else ""
        where = f"{prefix}{place}{shown}" if place else prefix.rstrip(".")
        lines.append(f"{where}: {text}" if where else text)
    return "; ".join(lines)
