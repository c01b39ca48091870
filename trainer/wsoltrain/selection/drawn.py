"""Configurations drawn from a recipe's ranges; keys that recipes share get the same draws, as a shared grid would."""

from __future__ import annotations

import math
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from wsoltrain.training.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wsoltrain.training.ranges import Range


def draw(ranges: Mapping[str, Range], number: int, *, seed: int = 0) -> dict[str, Any]:
    """Configuration of a number: a value for each key, by the key's name, the number and the seed alone.

    Parameters
    ----------
    ranges : mapping of str to Range
    number : int
        From 0.
    seed : int
        Of all configurations.
    """
    return {name: _value(each, _share(name, number, seed)) for name, each in ranges.items()}


def shared_configurations(
    ranges: Mapping[str, Range], shared: int, each: int, *, seed: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Configurations drawn for all methods alike, crossed with draws of the method's own keys (thesis, table 4.4).

    Parameters
    ----------
    ranges : mapping of str to Range
        Keys that every recipe has (lr, weight_decay …) are shared, the others the method's own.
    shared : int
        Draws of the shared keys.
    each : int
        Draws of the method's own keys with each of them; without such keys one is enough.
    seed : int
        Of all draws.

    Yields
    ------
    str, dict
        Name, and the value of each key. With ``each=1`` configuration n is that of `draw`.
    """
    common = {name: one for name, one in ranges.items() if name.partition(".")[0] in Recipe.model_fields}
    own = {name: one for name, one in ranges.items() if name not in common}
    for number in range(shared):
        for other in range(each if own else 1):
            name = f"c{number:03d}" if each == 1 or not own else f"c{number:03d}-{other:02d}"
            values = draw(common, number, seed=seed) | draw(own, number * each + other, seed=seed)
            yield name, {key: values[key] for key in ranges}


def _share(name: str, number: int, seed: int) -> float:
    entropy = int.from_bytes(sha256(name.encode()).digest()[:8], "big")
    return float(np.random.default_rng([seed, number, entropy]).random())


def _value(each: Range, share: float) -> Any:
    """Value at a share of a range, 0 to 1."""
    if each.choices is not None:
        return each.choices[int(share * len(each.choices))]
    low, high = each.low, each.high
    assert low is not None  # noqa: S101 - a range has choices or both bounds
    assert high is not None  # noqa: S101
    whole = isinstance(low, int) and isinstance(high, int)
    if each.log:
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        return round(value) if whole else value
    if each.step is not None or whole:
        step = each.step or 1
        return low + step * int(share * (int((high - low) / step) + 1))
    return low + share * (high - low)


def describe_range(each: Range) -> str:
    """A range as the tables write it: ``log-uniform 1e-05 to 1``, ``uniform 0 to 1``, ``one of 0.1, 0.01``."""
    if each.choices is not None:
        return f"one of {', '.join(map(str, each.choices))}"
    return f"{'log-uniform' if each.log else 'uniform'} {each.low:g} to {each.high:g}"
