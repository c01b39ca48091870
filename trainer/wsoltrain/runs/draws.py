"""Configurations drawn from a recipe's ranges; keys that recipes share get the same draws, as a shared grid would."""

from __future__ import annotations

import math
from hashlib import sha256
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError
from wsoltrain.training.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from wsoltrain.training.ranges import Range

PATIENCE = 1000
"""Draws in a row that were there already, after which no other is expected."""


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
    ranges: Mapping[str, Range], shared: int, each: int = 1, *, seed: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Draw configurations for all methods alike, crossed with draws of the method's own keys (thesis, table 4.4).

    No two are alike: a draw that is there already is left out, of the shared keys and of the method's own.

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
        Name, and the value of each key. With ``each=1`` configuration n is that of `draw`, unless one was left out.

    Raises
    ------
    ConfigError
        If the ranges do not hold so many.
    """
    common = {name: one for name, one in ranges.items() if name.partition(".")[0] in Recipe.model_fields}
    own = {name: one for name, one in ranges.items() if name not in common}
    if not common:
        common, own = own, {}
    every = each if own else 1
    drawn = list(islice(_distinct(common, count(), seed), shared))
    seen: list[dict[str, Any]] = []
    for number in range(shared):
        shown = drawn[number % len(drawn)]
        for other in range(every):
            fresh = _distinct(own, count(number * every + other, shared * every), seed) if own else iter([{}])
            values = next((each for each in (shown | more for more in fresh) if each not in seen), None)
            if values is None:
                msg = f"the ranges hold {len(seen)} different configurations, and {shared * every} are wanted"
                raise ConfigError(msg, hint="fewer configurations, or ranges with low and high instead of choices")
            seen.append(values)
            name = f"c{number:03d}" if every == 1 else f"c{number:03d}-{other:02d}"
            yield name, {key: values[key] for key in ranges}


def _distinct(ranges: Mapping[str, Range], numbers: Iterable[int], seed: int) -> Iterator[dict[str, Any]]:
    """Yield the draws of some numbers that are not there yet, until `PATIENCE` in a row were."""
    seen: list[dict[str, Any]] = []
    idle = 0
    for number in numbers:
        values = draw(ranges, number, seed=seed)
        idle = idle + 1 if values in seen else 0
        if idle > PATIENCE:
            return
        if not idle:
            seen.append(values)
            yield values


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
