"""Arguments of a command as text: ``key=value``, ``sweep.KEY=a,b,c``, and those of a ``config=`` file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from wsolpipe.contract.errors import ConfigError, shorten

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_CONSTANTS = {"": None, "true": True, "false": False, "null": None, "none": None, "~": None}
#: Digits of a number; longer ones are refused instead of rounded.
MOST_DIGITS = 300


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


PREFIX = "sweep."
#: Combinations of one sweep; more are refused, as they are more likely a slip.
MOST_POINTS = 1000


@dataclass(frozen=True)
class Sweep:
    """Words that stay, and the values of those that change.

    Attributes
    ----------
    words : tuple of str
        ``key=value`` words of every run.
    axes : dict of str to tuple of str
        Key -> its values, in the order in which they were written; empty where nothing is swept.
    """

    words: tuple[str, ...]
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def points(self) -> list[dict[str, str]]:
        """Each combination of values, the last key changing fastest; one empty combination without axes."""
        return [dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())]

    def words_of(self, point: dict[str, str]) -> tuple[str, ...]:
        """All words of one run."""
        return (*self.words, *(f"{name}={text}" for name, text in point.items()))


def split_sweep(words: Iterable[str]) -> Sweep:
    """Take the ``sweep.KEY=a,b,c`` words out of the words of a command.

    Commas inside brackets and braces do not separate: ``sweep.classifier.measure=[val],[val,test]`` has two values.

    Raises
    ------
    ConfigError
        If a word is not of the form key=value, a key has no value, has one twice, or is given by itself too, or there
        are more than `MOST_POINTS` combinations.

    Examples
    --------
    >>> split_sweep(["stage=cls_maps", "sweep.cls_maps.blocks=11,8-11"]).points()
    [{'cls_maps.blocks': '11'}, {'cls_maps.blocks': '8-11'}]
    """
    kept: list[str] = []
    axes: dict[str, tuple[str, ...]] = {}
    given = split_words(words)
    for name, text in given.items():
        if not name.startswith(PREFIX):
            kept.append(f"{name}={text}")
            continue
        key, values = name.removeprefix(PREFIX), split_values(text)
        if not key or not values:
            msg = f"{shorten(name)}={shorten(text)} names no {'value' if key else 'key'} to try"
            raise ConfigError(msg, hint="sweep.KEY=a,b,c tries each value, as in sweep.cls_maps.blocks=11,8-11")
        if key in given:
            msg = f"{shorten(key)}= is given both by itself and as {PREFIX}{shorten(key)}="
            raise ConfigError(msg, hint="leave one of them out")
        twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
        if twice is not None:
            msg = f"{shorten(name)}= holds the value {shorten(twice)} twice"
            raise ConfigError(msg)
        axes[key] = values
    found = Sweep(tuple(kept), axes)
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > MOST_POINTS:
        msg = f"the sweep has {count:,} combinations, more than {MOST_POINTS:,}"
        raise ConfigError(msg, hint="sweep fewer keys at once")
    return found


def split_values(text: str) -> tuple[str, ...]:
    """Values between commas that lie outside of brackets, braces and quotes."""
    values, depth, quote, start = [], 0, "", 0
    for place, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and depth:
            quote = char
        elif char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        elif char == "," and depth == 0:
            values.append(text[start:place])
            start = place + 1
    return tuple(part.strip() for part in (*values, text[start:]) if part.strip())


def expand_words(words: Iterable[str], listed: Callable[[str], bool] = lambda name: False) -> tuple[str, ...]:
    """The words of a command with those of its ``config=`` file, as if all had been typed.

    The file is a mapping of keys to values; ``cls_maps: {size: 448}`` and ``cls_maps.size: 448`` both mean
    ``cls_maps.size=448``. Values are read as their text is on the command line.

    Parameters
    ----------
    words : iterable of str
        ``key=value`` words; without ``config=`` they are returned as they are.
    listed : callable
        Whether a key takes several values with commas between them; a list of any other key, and of a key's item,
        becomes ``[a, b]``. Lists below ``sweep`` always get commas.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not a mapping, names another file, or holds a key twice.

    Examples
    --------
    >>> expand_words(["stage=cams", "cams.batch=8"])
    ('stage=cams', 'cams.batch=8')
    """
    words = tuple(words)
    named = [word for word in words if word.startswith("config=")]
    if not named:
        return words
    from wsolpipe.keys.safe_yaml import read_yaml  # PyYAML is slow to import, and few commands name a file

    given = split_words(word for word in words if "=" in word)
    path = Path(given["config"]).expanduser()
    content = read_yaml(path, as_text=True, hint="config=FILE.yaml holds arguments of the command line, one key a line")
    if not isinstance(content, dict):
        msg = f"{path} is not a mapping of keys to values"
        raise ConfigError(msg, hint="write a key a line, such as stage: proposals")
    found: dict[str, str] = {}
    for name, text in _flatten(content, "", listed):
        if name == "config":
            msg = f"{path}: config: a file of arguments names no other"
            raise ConfigError(msg)
        if name in found:
            msg = f"{path}: {shorten(name)} is given twice, once below its stage and once with a dot"
            raise ConfigError(msg)
        found[name] = text
    return (*(f"{name}={text}" for name, text in found.items() if name not in given),
            *(word for word in words if word not in named))  # fmt: skip


def _flatten(content: dict[str, Any], prefix: str, listed: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{name}.", listed)
        elif isinstance(value, list) and (listed(name) or name.startswith("sweep.")):
            yield name, ",".join(_flow(item) for item in value)
        else:
            yield name, _flow(value)


def _flow(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    return str(value)


def as_words(values: Mapping[str, Any]) -> list[str]:
    """Keys and values as ``key=value``: texts as they are, everything else as JSON, which every key reads."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]
