"""Recipes: what a training run does, read from YAML, changed by ``key=value``, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown
from wsolpipe.keys.safe_yaml import read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsoltrain.pseudo.samplers import Sampler

FOLDER = Path(__file__).parents[1] / "recipes"
CLIP_WORDS = ("labels", "stage", "on_the_fly", "clip_on_the_fly", "use_on_the_fly")
"""Keys by which labels made during training might be asked for."""


class Recipe(BaseModel):
    """Everything that changes what is learned; the names are the keys of the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Literal["dips", "dips_workshop", "trcam", "trcam_attention"]
    backbone: str
    model_args: dict[str, Any] = {}
    weights: str | None = "timm"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    size: int = Field(224, ge=16)
    resize: int | None = None
    flip: float = Field(0.5, ge=0, le=1)
    temperature: float = Field(1.0, gt=0)
    maps: str = "cls_maps"
    boxes: str | None = "proposals"
    one_per_group: bool = False
    sampler: Literal["dips", "dips_released", "trcam", "fcam", "tedloc"] = "dips"
    pixels: dict[str, Any] = {}
    pixel_weight: float = Field(1.0, ge=0)
    crf_weight: float = Field(2e-9, ge=0)
    crf_sigma_rgb: float = Field(15.0, gt=0)
    crf_sigma_xy: float = Field(100.0, gt=0)
    crf_scale: float = Field(1.0, gt=0)
    size_weight: float = Field(0.0, ge=0)
    larger_weight: float = Field(0.0, ge=0)
    cls_weight: float = Field(0.0, ge=0)
    cls_detached: bool = False
    classifier: str | None = None
    epochs: int = Field(50, ge=1)
    head_epochs: int = Field(10, ge=0)
    batch: int = Field(32, ge=1)
    lr: float = Field(0.01, gt=0)
    head_lr: float = Field(0.1, gt=0)
    schedule: Literal["step", "cosine"] = "step"
    lr_step: int = Field(15, ge=1)
    lr_gamma: float = Field(0.1, gt=0, le=1)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(0.0, ge=0)
    clip: float | None = Field(None, gt=0)
    amp: bool = True
    ema: float | None = Field(None, gt=0, lt=1)
    seed: int = Field(0, ge=0)

    def pixel_sampler(self) -> Sampler:
        """Return the sampler of `sampler` and `pixels`.

        Raises
        ------
        ConfigError
            If `pixels` holds a key that the sampler has not.
        """
        from wsoltrain.pseudo.samplers import SAMPLERS

        kind = SAMPLERS[self.sampler]
        known = list(signature(kind).parameters)
        for name in self.pixels:
            if name not in known:
                raise ConfigError(
                    unknown(f"key of sampler {self.sampler}", f"pixels.{name}", [f"pixels.{k}" for k in known])
                )
        return kind(**self.pixels)

    def rate(self, phase: str, epoch: int) -> float:
        """Learning rate of an epoch: constant for the head; for the maps falling in steps or along a cosine."""
        if phase == "head":
            return self.head_lr
        done = epoch - self.head_epochs
        if self.schedule == "cosine":
            return max(1e-8, self.lr * 0.5 * (1 + math.cos(math.pi * done / self.epochs)))
        return max(1e-8, self.lr * self.lr_gamma ** (done // self.lr_step))

    def changed_since(self, theirs: Mapping[str, Any]) -> str:
        """What differs from an earlier recipe, such as ``lr was 0.01, is 0.02``; empty where a run may go on with it.

        More or fewer epochs are no matter, nor is the precision of a GPU.
        """
        own, known = self.model_dump(mode="json"), type(self).model_fields
        return ", ".join(
            f"{name} was {theirs.get(name, known[name].default)}, is {value}"
            for name, value in own.items()
            if value != theirs.get(name, known[name].default) and name not in ("epochs", "amp")
        )


class Range(BaseModel):
    """What a search may try for one key: numbers between two bounds, or some values.

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


@dataclass(frozen=True)
class RecipeFile:
    """A recipe as it is written: keys, what differs by data set, and what a search may try.

    Attributes
    ----------
    name : str
        As it was asked for.
    keys : dict
        Of `Recipe`.
    datasets : dict of str to dict
        Keys laid over `keys` where the data set has that name.
    search : dict of str to dict
        Key, or ``pixels.key`` -> `Range`.
    """

    name: str
    keys: dict[str, Any]
    datasets: dict[str, dict[str, Any]]
    search: dict[str, Any]


def known_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name_or_path: str) -> RecipeFile:
    """Read a recipe's file.

    Parameters
    ----------
    name_or_path : str
        A name of `known_recipes`, or a YAML file.

    Raises
    ------
    ConfigError
        If there is no such recipe, or a section is no mapping.
    """
    path = Path(name_or_path) if name_or_path.endswith((".yaml", ".yml")) else FOLDER / f"{name_or_path}.yaml"
    if not path.is_file():
        raise ConfigError(unknown("recipe", name_or_path, known_recipes()))
    keys = read_yaml(path)
    sections = [keys]
    if isinstance(keys, dict):
        datasets, search = (keys.pop(section, None) or {} for section in ("datasets", "search"))
        sections += [datasets, search]
        sections += datasets.values() if isinstance(datasets, dict) else []
    if not all(isinstance(section, dict) for section in sections):
        msg = f"{path}: the file, datasets, each data set in it, and search must be mappings of keys"
        raise ConfigError(msg)
    return RecipeFile(name_or_path, keys, datasets, search)


def load_recipe(name_or_path: str, *, dataset: str, changes: Mapping[str, Any]) -> Recipe:
    """Read a recipe, lay over it what it says of a data set, and over that single keys.

    Parameters
    ----------
    name_or_path : str
        A name of `known_recipes`, or a YAML file.
    dataset : str
        Name of the data set, for the recipe's ``datasets``.
    changes : mapping
        Keys and values; ``pixels.n_fg``, or a mapping for ``pixels``, changes these keys of it and leaves the others.

    Raises
    ------
    ConfigError
        If there is no such recipe, a key is unknown (names the nearest), or a value does not fit, be it in the section
        of a data set that is not asked for.
    """
    file = read_recipe(name_or_path)
    for other, keys in file.datasets.items():
        if other != dataset:
            _checked(f"{file.name}, data set {other}", _laid(file.keys, keys))
    keys = _laid(file.keys, file.datasets.get(dataset, {}))
    return _checked(file.name, _laid(keys, changes))


def load_ranges(name_or_path: str, *, dataset: str, changes: Mapping[str, Any]) -> dict[str, Range]:
    """Read what a search may try: the recipe's ``search`` without the keys that `changes` gives a value.

    Raises
    ------
    ConfigError
        As `load_recipe`; also if nothing is left to be searched, or the end of a range does not fit its key.
    """
    file = read_recipe(name_or_path)
    keys = _laid(_laid(file.keys, file.datasets.get(dataset, {})), changes)
    ranges: dict[str, Range] = {}
    for name, given in file.search.items():
        if name in changes:
            continue
        try:
            ranges[name] = Range.model_validate(given)
        except ValidationError as error:
            msg = f"recipe {file.name}, search {name}: {_told(error)}"
            raise ConfigError(msg, hint="{low: 0.001, high: 0.1, log: true}, or {choices: [1, 10, 100]}") from error
        for value in ranges[name].ends():
            _checked(f"{file.name}, search {name}", _laid(keys, {name: value}))
    if not ranges:
        msg = f"recipe {file.name} leaves nothing to be searched for {dataset}"
        raise ConfigError(msg, hint="a section search: {lr: {low: 0.001, high: 0.1, log: true}} in the recipe")
    return ranges


def _laid(keys: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Keys with changes laid over them, mappings key by key; another sampler begins with its own defaults."""
    laid = dict(keys)
    if changes.get("sampler", laid.get("sampler")) != laid.get("sampler"):
        laid["pixels"] = {}
    for name, value in changes.items():
        outer, _, inner = name.partition(".")
        if outer in CLIP_WORDS or (outer == "maps" and value in ("clip", "clipseg", "on_the_fly")):
            msg = f"{name}={value}: wsoltrain reads pseudo-labels from the store and makes none while it trains"
            raise ConfigError(msg, hint="wsolpipe run stage=clip_cams dataset=…, then wsoltrain fit maps=clip_cams …")
        if outer not in Recipe.model_fields:
            raise ConfigError(unknown("key", outer, Recipe.model_fields))
        more = {inner: value} if inner else value
        laid[outer] = {**(laid.get(outer) or {}), **more} if isinstance(more, dict) else more
    return laid


def _checked(where: str, keys: Mapping[str, Any]) -> Recipe:
    try:
        recipe = Recipe.model_validate(keys)
    except ValidationError as error:
        msg = f"recipe {where}: {_told(error)}"
        raise ConfigError(msg, hint="wsoltrain fit --help lists the keys") from error
    recipe.pixel_sampler()
    return recipe


def _told(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}".lstrip(": ") for e in error.errors())
