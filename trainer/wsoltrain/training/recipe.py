"""Recipes: what a training run does. Keys that all methods have, beside the method's own."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field, create_model

from wsolpipe.contract.errors import ConfigError
from wsoltrain.data.keys import Keys
from wsoltrain.methods.registry import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsoltrain.methods.base import Method, Reads, Task

#: Keys of older recipes and checkpoints -> today's.
RENAMED = {"model": "method"}
#: Keys that may change when a run is resumed: more or fewer epochs, and the precision of a GPU.
IRRELEVANT = ("epochs", "amp")


#: Bounds of counts, such as epochs, and of factors, such as learning rates: their products stay finite in float32.
MANY, STRONG = 10**6, 1e30
Share = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=100)]
Below1 = Annotated[float, Field(ge=0, lt=1)]
Deviation = Annotated[float, Field(ge=1e-4, le=1e4)]


class Recipe(Keys):
    """Keys that every recipe has; `recipe_type` adds those of a method. Nothing else changes what is learned.

    Attributes
    ----------
    method
        What is trained: name of a method
    **images and augmentation**
    size
        Side of the square that the network sees, pixels
    resize
        Side to which an image is squashed before a random crop of size, pixels; null: 8/7 of size
    flip
        Probability of a horizontal flip
    vflip
        Probability of a vertical flip
    jitter
        How far colours vary in training: brightness, contrast, saturation (shares), hue (turns)
    mean
        Mean of each colour, 0..1, of the backbone
    std
        Standard deviation of each colour, 0..1, of the backbone
    one_per_group
        Draw one random frame of each group (video shot) an epoch
    frames_per_group
        Draw as many random frames of each group an epoch; null: all, or one with one_per_group
    **epochs, batches and optimiser**
    epochs
        Epochs of the method's main phase; 0 scores the network as it is loaded
    batch
        Images a step, of all processes together
    accumulate
        Batches whose gradients are averaged before each update
    optimiser
        sgd (momentum, nesterov), adamw or adam (both: betas)
    momentum
        Momentum of sgd
    nesterov
        Nesterov's momentum, for sgd
    betas
        Decay of both running means of adamw and adam
    weight_decay
        Weight decay: L2 for sgd and adam, decoupled for adamw
    frozen_bn
        Normalise by the stored statistics in training too; weights of the layers are still trained
    clip
        Norm to which gradients are clipped; null: not at all
    amp
        Run the network in bfloat16, which is faster on a GPU; the authors train in float32
    ema
        Decay of a running average of the weights, which is evaluated and kept; null: none
    seed
        Of every random draw
    **learning rate and schedule**
    lr
        Learning rate
    lr_min
        Learning rate below which no schedule goes
    schedule
        How lr falls: step (times lr_gamma every lr_step epochs), multi_step (at each of milestones), cosine (to 0 over
        the epochs), polynomial (the share of epochs that is left, to the power lr_power), constant
    schedule_by
        Whether lr changes once an epoch or at each step
    lr_step
        Epochs between falls of schedule=step
    lr_gamma
        Factor of each fall of schedule=step and multi_step
    milestones
        Epochs at which lr falls, for schedule=multi_step
    count_from
        Number of the first epoch in lr_step and milestones: with 1, as several authors count, lr falls an epoch sooner
    lr_power
        Exponent of schedule=polynomial
    warmup
        Epochs in which lr rises linearly to its schedule; 0: none
    """

    method: str
    size: int = Field(224, ge=16, le=8192)
    resize: int | None = Field(None, ge=16, le=16384)
    flip: float = Field(0.5, ge=0, le=1)
    vflip: float = Field(0.0, ge=0, le=1)
    jitter: tuple[Strength, Strength, Strength, Annotated[float, Field(ge=0, le=0.5)]] = (0.0, 0.0, 0.0, 0.0)
    mean: tuple[Share, Share, Share] = (0.485, 0.456, 0.406)
    std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)
    one_per_group: bool = False
    frames_per_group: int | None = Field(None, ge=1, le=MANY)
    epochs: int = Field(50, ge=0, le=MANY)
    batch: int = Field(32, ge=1, le=MANY)
    accumulate: int = Field(1, ge=1, le=MANY)
    optimiser: Literal["sgd", "adamw", "adam"] = "sgd"
    lr: float = Field(0.01, gt=0, le=STRONG)
    lr_min: float = Field(1e-8, ge=0, le=STRONG)
    schedule: Literal["step", "multi_step", "cosine", "polynomial", "constant"] = "step"
    schedule_by: Literal["epoch", "step"] = "epoch"
    lr_step: int = Field(15, ge=1, le=MANY)
    lr_gamma: float = Field(0.1, gt=0, le=1)
    milestones: tuple[Annotated[int, Field(ge=0, le=MANY)], ...] = ()
    count_from: Literal[0, 1] = 0
    lr_power: float = Field(0.9, gt=0, le=100)
    warmup: float = Field(0.0, ge=0, le=MANY)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    betas: tuple[Below1, Below1] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0, le=STRONG)
    frozen_bn: bool = False
    clip: float | None = Field(None, gt=0, le=STRONG)
    amp: bool = False
    ema: float | None = Field(None, gt=0, lt=1)
    seed: int = Field(0, ge=0)

    def check(self) -> None:
        """Refuse common keys that do not fit each other."""
        super().check()
        if self.schedule == "multi_step" and not self.milestones:
            msg = "schedule=multi_step needs milestones"
            raise ConfigError(msg, hint="milestones=[30,60]")

    @property
    def squashed(self) -> int:
        """Side to which an image is squashed before it is cropped, pixels."""
        return self.resize or round(self.size * 8 / 7)

    def reads(self) -> Reads:
        """Return what of the store its method is trained on."""
        return METHODS.find(self.method).reads(self)

    def build(self, task: Task) -> Method[Any]:
        """Make the method's network, its first weights drawn from the seed.

        Raises
        ------
        ConfigError, WeightsError
            If a name is unknown or weights do not fit.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return METHODS.find(self.method)(self, task)

    def changed_since(self, before: Mapping[str, Any]) -> str:
        """Return what differs from an earlier recipe, such as ``lr was 0.01, is 0.02``; empty if a run may resume."""
        own, known, before = self.model_dump(mode="json"), type(self).model_fields, renamed(before)
        return ", ".join(
            f"{name} was {before.get(name, known[name].default)}, is {value}"
            for name, value in own.items()
            if value != _plain(before.get(name, known[name].default)) and name not in IRRELEVANT
        )


def _plain(value: Any) -> Any:
    """A default as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


@cache
def recipe_type(method: str) -> type[Recipe]:
    """Return the class of a method's recipes: its own keys and the common ones, side by side.

    Raises
    ------
    ConfigError
        If there is no such method, or one of its keys has the name of a common one.
    """
    found = METHODS.find(method)
    clash = sorted(found.Keys.model_fields.keys() & Recipe.model_fields.keys())
    if clash:
        msg = f"method {method} declares {', '.join(clash)}, which every recipe has"
        raise ConfigError(msg, hint=f"rename the key in {found.__module__}, or read the common one")
    bases: Any = (found.Keys, Recipe)
    return cast("type[Recipe]", create_model(f"Recipe of {method}", __base__=bases))


def renamed(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Keys under today's names."""
    return {RENAMED.get(name, name): value for name, value in keys.items()}


def read_saved(keys: Mapping[str, Any]) -> Recipe:
    """Return the recipe that a checkpoint holds.

    Raises
    ------
    ConfigError
        If its method is not known here.
    """
    keys = renamed(keys)
    kind = recipe_type(keys["method"])
    older = ("head_lr",) if "head_lr" not in kind.model_fields else ()  # once a key of every recipe
    return kind.model_validate({name: value for name, value in keys.items() if name not in older})
