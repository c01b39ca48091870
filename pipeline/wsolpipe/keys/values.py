"""Text of ``key=value`` words: one reading of values for both halves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_CONSTANTS = {"": None, "true": True, "false": False, "null": None, "none": None, "~": None}
MOST_DIGITS = 300
"""Digits of a number; longer ones are refused instead of rounded."""


def parse_value(text: str) -> Any:
    """Value of one ``key=value``: a number, true, false, null, a list or mapping in YAML's flow style, else the text.

    An empty value is null. Words such as ``no`` and ``on`` stay text. Inside a list or mapping the same holds, except
    that quoted values are text.

    Raises
    ------
    ConfigError
        If a list or mapping is not valid, or a number is too long.

    Examples
    --------
    >>> parse_value("8-11"), parse_value("1e-3"), parse_value("[1, 2e-9, no]"), parse_value("no")
    ('8-11', 0.001, [1, 2e-09, 'no'], 'no')
    """
    plain = text.strip()
    lowered = plain.lower()
    if lowered in _CONSTANTS:
        return _CONSTANTS[lowered]
    if _NUMBER.fullmatch(plain):
        if len(plain) > MOST_DIGITS:
            msg = f"a number of {len(plain):,} digits: {shorten(plain)}"
            raise ConfigError(msg)
        return float(plain) if re.search(r"[.eE]", plain) else int(plain)
    if plain[:1] in {"[", "{"}:
        from wsolpipe.keys.safe_yaml import load_flow

        return load_flow(plain, parse_value)
    return text


def split_words(words: Iterable[str]) -> dict[str, str]:
    """``key=value`` words as a mapping.

    Raises
    ------
    ConfigError
        If a word has no ``=`` or a key is given twice.
    """
    values: dict[str, str] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            msg = f"{shorten(word)!r} is not of the form key=value"
            raise ConfigError(msg, hint="write key=value, as in stage=cls_maps; --help lists the keys")
        if key in values:
            msg = f"{shorten(key)}= is given twice: {shorten(values[key])} and {shorten(value)}"
            raise ConfigError(msg)
        values[key] = value
    return values


def nest(target: dict[str, Any], path: list[str], value: Any) -> None:
    """Put `value` into `target` at ``path[0].path[1]…``, making the mappings on the way.

    Raises
    ------
    ConfigError
        If a part of the path is empty, or already has a value that is not a mapping.
    """
    name = shorten(".".join(path))
    if not all(path):
        msg = f"{name}=: a name is missing beside a dot"
        raise ConfigError(msg)
    for part in path[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            msg = f"{name}: {part} already has a value of its own"
            raise ConfigError(msg)
    target[path[-1]] = value
