"""Ranges of a recipe's keys that a search draws from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown
from wsolpipe.contract.validation import explain_all
from wsolpipe.keys.safe_yaml import read_yaml
from wsoltrain.training.recipe_file import check_recipe, keys_for, lay_over, read_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

SPACES = Path(__file__).with_name("spaces.yaml")
"""Ranges that recipes share, by name."""


class Range(BaseModel):
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

    model_config = ConfigDict(extra="forbid", frozen=True)

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
