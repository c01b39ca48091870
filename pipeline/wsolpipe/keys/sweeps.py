"""Sweeps: ``sweep.KEY=a,b,c`` among the words of a command stands for that command once with each value."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import shorten
from wsolpipe.keys.values import split_words

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "sweep."
MOST_POINTS = 1000
"""Combinations of one sweep; more are refused, as they are more likely a slip."""


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
