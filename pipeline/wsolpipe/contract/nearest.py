"""Messages for unknown names (with the nearest known one) and for wrong values, worded in one place."""

from __future__ import annotations

import difflib
import json
from itertools import groupby
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


#: Characters of a user's word that an error message repeats.
LONGEST = 80

#: Likeness from which on a name may have been meant.
CUTOFF = 0.5
#: Name of a split -> how else it is called.
_LONGER = {"train": ("training",), "val": ("valid", "validation", "dev"), "test": ("testing",)}
#: Names that an error message lists; of more, only those that are near.
MOST_LISTED = 60


def shorten(text: str) -> str:
    """`text` as an error message shows it: cut after `LONGEST` characters, with its length.

    Examples
    --------
    >>> shorten("proposals"), shorten("a" * 5000)[-23:]
    ('proposals', 'a… (5,000 characters)')
    """
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def nearest(given: str, valid: Iterable[str], *, cutoff: float = CUTOFF) -> str | None:
    """The nearest of `valid`: equal but for case, else begun by it, else as like it as `cutoff` (1: equal) or None.

    Examples
    --------
    >>> nearest("SAM", ["cams", "sam_boxes"]), nearest("validation", ["train", "val"]), nearest("x", ["train"])
    ('sam_boxes', 'val', None)
    """
    if len(given) > LONGEST:
        return None
    names, low = sorted(set(valid)), given.lower()
    same = [name for name in names if name.lower() == low]
    begun = [name for name in names if name.lower().startswith(f"{low}_") or low in _LONGER.get(name, ())]
    close = same or begun[:1] or difflib.get_close_matches(given, names, n=1, cutoff=cutoff)
    return close[0] if close else None


def guess(given: str, valid: Iterable[str], *, cutoff: float = CUTOFF) -> str:
    """``; did you mean 'NAME'?`` with the nearest of `valid`, empty where none is near.

    Examples
    --------
    >>> guess("lables", ["labels", "photos"]), guess("x", ["photos"])
    ("; did you mean 'labels'?", '')
    """
    close = nearest(given, valid, cutoff=cutoff)
    return f"; did you mean {close!r}?" if close else ""


def guess_path(given: str | Path, pattern: str = "*") -> str:
    """As `guess`, among what else lies in the same folder and matches `pattern`."""
    path = Path(given)
    try:
        names = {entry.stem: entry.name for entry in path.parent.glob(pattern) if entry.name != path.name}
    except OSError:
        return ""
    close = nearest(path.name, names.values(), cutoff=0.9) or names.get(nearest(path.stem, names) or "")
    return f"; did you mean {close!r}?" if close else ""


def unknown(kind: str, given: str, valid: Iterable[str]) -> str:
    """Say that `given` is not a known `kind`, name the nearest of `valid`, and list them all up to `MOST_LISTED`.

    Examples
    --------
    >>> unknown("stage", "proposal", ["cls_maps", "proposals"])
    "unknown stage 'proposal'; did you mean 'proposals'? Valid: cls_maps, proposals"
    """
    names = sorted(set(valid))
    listed = f"Valid: {', '.join(names) or 'none'}"
    if len(names) > MOST_LISTED:
        part = sorted((name for name in names if given and given.lower() in name.lower()), key=len)
        close = difflib.get_close_matches(given, names, n=6, cutoff=CUTOFF) if len(given) <= LONGEST else []
        close = part[:6] or close
        listed = f"Near: {', '.join(close)}" if close else f"There are {len(names):,}, none of a name like it"
    return f"unknown {kind} {shorten(given)!r}{guess(given, names) or '.'} {listed}"


#: First word of a pydantic error type -> the kind of value that was expected.
_EXPECTED = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "string": "text", "list": "a list",
    "tuple": "a list", "dict": "a mapping such as {name: value}", "model": "a mapping such as {name: value}",
    "none": "null", "path": "a path", "finite_number": "a finite number", "decimal": "a number",
}  # fmt: skip
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
