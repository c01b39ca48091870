"""Ranges of a recipe's keys, and the configurations that are drawn from them.

Keys that recipes share get the same draws, as a shared grid would.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError, model_validator

from wsolpipe.contract.errors import ConfigError, explain_all, unknown
from wsolpipe.keys.safe_yaml import read_yaml
from wsoltrain.training.recipe import Recipe
from wsoltrain.training.recipe_file import check_recipe, keys_for, lay_over, read_recipe

#: Draws in a row that were there already, after which no other is expected.
PATIENCE = 1000


def draw(ranges: Mapping[str, Range], number: int, *, seed: int = 0) -> dict[str, Any]:
    """Draw one configuration: a value for each key, which depends on the key's name, `number` and the seed alone.

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
    """Draw the same configurations for all methods, crossed with draws of the method's own keys (thesis, table 4.4).

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


#: Ranges that recipes share, by name.
SPACES = Path(__file__).with_name("spaces.yaml")


class Range(BaseModel, extra="forbid", frozen=True):
    """Values that a search may try for one key: numbers between two bounds, or some values.

    Attributes
    ----------
    low, high : int or float
        Both within; whole numbers draw whole numbers.
    log : bool
        Draw evenly in the logarithm.
    step : int or float, optional
        Distance of the values, counted from `low`.
    choices : list, optional
        Instead of bounds.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = Field(None, gt=0)
    choices: list[Any] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_kind(self) -> Range:
        bounds = (self.low, self.high)
        if (self.choices is None) == (None in bounds) or (self.choices is not None and bounds != (None, None)):
            msg = "give low and high, or choices"
            raise ValueError(msg)
        if self.low is not None and self.high is not None:
            if self.low > self.high or (self.log and self.low <= 0):
                msg = f"low={self.low} must be at most high={self.high}, and above 0 with log"
                raise ValueError(msg)
            if self.log and self.step is not None:
                msg = "step and log exclude each other"
                raise ValueError(msg)
        return self

    def ends(self) -> list[Any]:
        """Return the values that must fit the key: every choice, or both bounds."""
        return self.choices if self.choices is not None else [self.low, self.high]


def load_ranges(name_or_path: str, *, dataset: str, changes: Mapping[str, Any]) -> dict[str, Range]:
    """Read what a search may try: the recipe's ``search`` without the keys that `changes` gives a value.

    ``space: NAME`` in it stands for ranges of `SPACES`, over which its own go.

    Raises
    ------
    ConfigError
        As `load_recipe`; also if nothing is left to be searched, or the end of a range does not fit its key.
    """
    file = read_recipe(name_or_path)
    keys = keys_for(file, dataset, changes)
    searched = dict(file.search)
    space = _space(searched.pop("space"), dataset) if "space" in searched else {}
    ranges: dict[str, Range] = {}
    for name, given in {**space, **searched}.items():
        if name in changes:
            continue
        try:
            ranges[name] = Range.model_validate(given)
        except ValidationError as error:
            msg = f"recipe {file.name}, search {name}: {explain_all(error)}"
            raise ConfigError(msg, hint="{low: 0.001, high: 0.1, log: true}, or {choices: [1, 10, 100]}") from error
        for value in ranges[name].ends():
            check_recipe(f"{file.name}, search {name}", lay_over(keys, {name: value}))
    if not ranges:
        msg = f"recipe {file.name} leaves nothing to be searched for {dataset}"
        raise ConfigError(msg, hint="a section search: {lr: {low: 0.001, high: 0.1, log: true}} in the recipe")
    return ranges


def _space(name: str, dataset: str) -> dict[str, Any]:
    """Return the ranges of a name on a data set."""
    spaces = read_yaml(SPACES)
    if name not in spaces:
        raise ConfigError(unknown("search space", str(name), spaces))
    space: dict[str, Any] = spaces[name]
    own = space.pop("datasets", {}).get(dataset, {})
    return {**space, **own}
