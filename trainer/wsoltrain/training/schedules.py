"""Learning rates: what a recipe's schedule gives at a moment of a phase."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsoltrain.training.recipe import Recipe


@dataclass(frozen=True)
class Moment:
    """Where training is within a phase.

    Attributes
    ----------
    epoch : int
        Of the phase, from 0.
    step, steps : int
        Step within the epoch, from 0, and steps that the epoch has.
    """

    epoch: int
    step: int = 0
    steps: int = 1

    def done(self, unit: str) -> float:
        """Epochs that are behind: whole ones where `unit` is ``epoch``, with their fraction where it is ``step``."""
        return self.epoch if unit == "epoch" else self.epoch + self.step / self.steps


def _step(recipe: Recipe, done: float, epochs: int) -> float:
    del epochs
    return float(recipe.lr_gamma ** (done // recipe.lr_step))


def _multi_step(recipe: Recipe, done: float, epochs: int) -> float:
    del epochs
    return float(recipe.lr_gamma ** sum(done >= each for each in recipe.milestones))


def _cosine(recipe: Recipe, done: float, epochs: int) -> float:
    del recipe
    return 0.5 * (1 + math.cos(math.pi * done / epochs))


SCHEDULES: dict[str, Callable[[Recipe, float, int], float]] = {
    "step": _step,
    "multi_step": _multi_step,
    "cosine": _cosine,
    "constant": lambda recipe, done, epochs: 1.0,  # noqa: ARG005
}
"""``schedule`` -> share of `lr` after a number of epochs, of so many in all."""


def rate(recipe: Recipe, moment: Moment, epochs: int) -> float:
    """Return the learning rate of a step.

    Parameters
    ----------
    recipe : Recipe
        `lr`, its schedule and warm-up.
    moment : Moment
        Within the phase.
    epochs : int
        Of the phase.
    """
    value = recipe.lr * SCHEDULES[recipe.schedule](recipe, moment.done(recipe.schedule_by), epochs)
    if recipe.warmup:
        begun = moment.done("step") + 1 / moment.steps
        value *= min(1.0, begun / recipe.warmup)
    return max(recipe.lr_min, value)
