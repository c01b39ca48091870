"""The kinds of values: how its text is read, how it is described, and which values a shell can complete."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsolpipe.contract.named import Registry

#: Texts that mean no value.
NULL = frozenset({"", "null", "none", "~"})
FLAG = ("true", "false")
#: Name of the kind of keys that take a store.
STORE = "folder or URL"
#: Bytes of a name of a file, or of anything that names a folder of a store.
MOST_BYTES = 255
_DIGITS = 18


@dataclass(frozen=True)
class Unit:
    """Unit of a parameter, in its annotation: ``Annotated[int, Field(ge=1), Unit("pixels")]``."""

    name: str


class NamesFile:
    """Marks a parameter that may be the path of a file: ``Annotated[str, NamesFile()]``; a shell offers files."""


@dataclass(frozen=True)
class Named:
    """Marks a parameter that is the name of one of a registry's: ``Annotated[str, Named(SAMPLERS)]``."""

    registry: Registry[Any]


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes
    ----------
    name : str
        What it is, as tables and errors say it: ``integer, at least 1``.
    read : callable
        Text -> value; raises ValueError where the text is not of this kind.
    choices : tuple of str
        All texts that are allowed; empty where there are others.
    offers : tuple of str
        Texts that a shell may offer where others are allowed too.
    source : str
        What else a shell may offer, such as ``dataset``: each command line knows how to look it up.
    files : bool
        Whether a shell may offer files and folders.
    listed : bool
        Whether several values may be given, with commas between them.
    null : bool
        Whether `NULL` means no value.
    filled : bool
        Whether an empty text is refused, as a shell gives for a variable that is not set.
    """

    name: str
    read: Callable[[str], Any]
    choices: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()
    source: str = ""
    files: bool = False
    listed: bool = False
    null: bool = False
    filled: bool = False


def integer(least: float | None = None, most: float | None = None) -> Kind:
    """Whole number between two bounds, both allowed."""

    def read(text: str) -> int:
        if not re.fullmatch(rf"[+-]?\d{{1,{_DIGITS}}}", text):
            raise ValueError
        return int(_bounded(int(text), least, most))

    return Kind(f"integer{_bounds(least, most)}", read, filled=True)


def number(least: float | None = None, most: float | None = None) -> Kind:
    """Number between two bounds, both allowed; whole ones stay integers."""

    def read(text: str) -> int | float:
        if not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", text) or len(text) > 40:
            raise ValueError
        value = float(text)
        return _bounded(int(text) if re.fullmatch(r"[+-]?\d+", text) else value, least, most)

    return Kind(f"number{_bounds(least, most)}", read, filled=True)


def number_or(word: str, least: float | None = None, most: float | None = None) -> Kind:
    """Number between two bounds, or a word."""
    plain = number(least, most)
    return Kind(
        f"{plain.name} or {word}", lambda text: word if text == word else plain.read(text), offers=(word,), filled=True
    )


def _bounded(value: int | float, least: float | None, most: float | None) -> int | float:
    if (least is not None and value < least) or (most is not None and value > most):
        raise ValueError
    return value


def _bounds(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {least:g} to {most:g}"
    return "" if least is None and most is None else f", at least {least:g}" if most is None else f", at most {most:g}"


def flag() -> Kind:
    """``true`` or ``false``."""
    return Kind("true or false", lambda text: _one_of(FLAG, text.lower()) == "true", FLAG)


def choice(*names: str) -> Kind:
    """One of some names."""
    listed = f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
    return Kind(listed, lambda text: _one_of(names, text), names)


def _one_of(names: tuple[str, ...], text: str) -> str:
    if text not in names:
        raise ValueError
    return text


def text(name: str = "text", *, offers: tuple[str, ...] = (), source: str = "") -> Kind:
    """Any text."""
    return Kind(name, str, offers=offers, source=source)


def name(what: str, *, offers: tuple[str, ...] = (), source: str = "") -> Kind:
    """Name of a thing, such as a stage, short enough to name a folder."""
    return Kind(what, _short, offers=offers, source=source)


def file(what: str = "file", *, offers: tuple[str, ...] = (), source: str = "", ending: str = "") -> Kind:
    """Path or URL of a file or folder; with `ending`, only of a file whose name ends so."""

    def read(text: str) -> str:
        if not text.lower().endswith(ending):
            raise ValueError
        return _short(text)

    return Kind(what, read, offers=offers, source=source, files=True)


def _short(text: str) -> str:
    if any(len(part.encode("utf-8", "surrogateescape")) > MOST_BYTES for part in text.split("/")) or "\0" in text:
        raise ValueError
    return text


def list_of(kind: Kind) -> Kind:
    """Several values of a kind, with commas between them."""

    def read(text: str) -> tuple[Any, ...]:
        return tuple(kind.read(part.strip()) for part in text.split(",") if part.strip())

    return replace(kind, name=f"{kind.name}, or several with commas", read=read, listed=True)


def or_null(kind: Kind) -> Kind:
    """A kind that may also be ``null``."""
    return replace(kind, name=f"{kind.name}, or null", null=True)


def filled(kind: Kind) -> Kind:
    """A kind that refuses an empty text."""
    return replace(kind, filled=True)


def kind_of_type(annotation: Any, least: float | None = None, most: float | None = None) -> Kind:
    """Kind of a field by its type: int, float, bool, str, a Literal, a tuple of one of these, or any or None."""
    inner = [item for item in get_args(annotation) if item not in (NoneType, Ellipsis)]
    if get_origin(annotation) is Literal:
        return choice(*inner)
    if get_origin(annotation) is tuple:
        return list_of(kind_of_type(inner[0], least, most))
    if inner:
        kind = kind_of_type(inner[0], least, most)
        return or_null(kind) if inner[0] in (int, float) else kind
    if annotation is bool:
        return flag()
    if annotation in (int, float):
        return (integer if annotation is int else number)(least, most)
    return text()
