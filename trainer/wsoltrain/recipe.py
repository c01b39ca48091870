"""Recipes: what a training run does, read from YAML, changed by ``key=value``, checked once."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsoltrain.pixels import Dips, OtsuRegion

FOLDER = Path(__file__).parent / "recipes"


class Recipe(BaseModel):
    """Everything that changes what is learned; the names are the keys of the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Literal["dips", "trcam", "trcam_attention"]
    backbone: str
    model_args: dict[str, Any] = {}
    weights: str | None = "timm"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    size: int = Field(224, ge=16)
    resize: int | None = None
    flip: float = Field(0.5, ge=0, le=1)
    maps: str = "cls_maps"
    boxes: str | None = "proposals"
    one_per_group: bool = False
    sampler: Literal["dips", "otsu"] = "dips"
    pixels: dict[str, Any] = {}
    pixel_weight: float = Field(1.0, ge=0)
    crf_weight: float = Field(2e-9, ge=0)
    crf_sigma_rgb: float = Field(15.0, gt=0)
    crf_sigma_xy: float = Field(100.0, gt=0)
    crf_scale: float = Field(1.0, gt=0)
    size_weight: float = Field(0.0, ge=0)
    epochs: int = Field(50, ge=1)
    head_epochs: int = Field(10, ge=0)
    batch: int = Field(32, ge=1)
    lr: float = Field(0.01, gt=0)
    head_lr: float = Field(0.1, gt=0)
    lr_step: int = Field(15, ge=1)
    lr_gamma: float = Field(0.1, gt=0, le=1)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(0.0, ge=0)
    clip: float | None = Field(None, gt=0)
    amp: bool = True
    seed: int = Field(0, ge=0)

    def pixel_sampler(self) -> Dips | OtsuRegion:
        """Return the sampler of `sampler` and `pixels`.

        Raises
        ------
        ConfigError
            If `pixels` holds a key that the sampler has not.
        """
        from wsoltrain.pixels import Dips, OtsuRegion

        kind: type[Dips | OtsuRegion] = {"dips": Dips, "otsu": OtsuRegion}[self.sampler]
        known = [item.name for item in fields(kind)]
        for name in self.pixels:
            if name not in known:
                raise ConfigError(
                    unknown(f"key of sampler {self.sampler}", f"pixels.{name}", [f"pixels.{k}" for k in known])
                )
        return kind(**self.pixels)


def known_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_recipe(name_or_path: str, *, dataset: str, changes: Mapping[str, Any]) -> Recipe:
    """Read a recipe, with what it says of a data set, and change single keys.

    Parameters
    ----------
    name_or_path : str
        A name of `known_recipes`, or a YAML file.
    dataset : str
        Name of the data set, for the recipe's ``datasets``.
    changes : mapping
        Keys and values; ``pixels.n_fg`` goes into ``pixels``.

    Raises
    ------
    ConfigError
        If there is no such recipe, a key is unknown (names the nearest), or a value does not fit.
    """
    path = Path(name_or_path) if name_or_path.endswith((".yaml", ".yml")) else FOLDER / f"{name_or_path}.yaml"
    if not path.is_file():
        raise ConfigError(unknown("recipe", name_or_path, known_recipes()))
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(raw, dict):
        msg = f"{path} holds no mapping of keys"
        raise ConfigError(msg)
    raw |= raw.pop("datasets", {}).get(dataset, {})
    for name, value in changes.items():
        outer, _, inner = name.partition(".")
        if outer not in Recipe.model_fields:
            raise ConfigError(unknown("key", outer, Recipe.model_fields))
        if inner:
            raw[outer] = {**raw.get(outer, {}), inner: value}
        else:
            raw[outer] = value
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        msg = f"recipe {name_or_path}: {told}"
        raise ConfigError(msg, hint="wsoltrain fit --help lists the keys") from error
    recipe.pixel_sampler()
    return recipe
