"""The movement of the weights: the phases of a run with their optimisers, learning rates at each step, and an average.

Rates are functions of the step, where torch's schedulers keep counters: a resumed run needs no state of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.swa_utils import AveragedModel

from wsolpipe.contract.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from wsoltrain.methods.base import Method, Phase
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


#: ``schedule`` -> share of `lr` after a number of epochs, of so many in all.
SCHEDULES: dict[str, Callable[[Recipe, float, int], float]] = {
    "step": lambda recipe, done, _: float(recipe.lr_gamma ** ((done + recipe.count_from) // recipe.lr_step)),
    "multi_step": lambda recipe, done, _: float(
        recipe.lr_gamma ** sum(done + recipe.count_from >= each for each in recipe.milestones)
    ),
    "cosine": lambda _, done, epochs: 0.5 * (1 + math.cos(math.pi * done / epochs)),
    "polynomial": lambda recipe, done, epochs: max(0.0, 1 - done / epochs) ** recipe.lr_power,
    "constant": lambda *_: 1.0,
}


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


@dataclass(frozen=True)
class Running:
    """A phase of a run.

    Attributes
    ----------
    phase : Phase
        As the method describes it.
    first, epochs : int
        Its first epoch of the whole run, and their number.
    optimiser : Optimizer
        Of its parameters.
    """

    phase: Phase
    first: int
    epochs: int
    optimiser: torch.optim.Optimizer

    def set_rates(self, recipe: Recipe, moment: Moment) -> None:
        """Give each group its learning rate of a step."""
        base = self.phase.lr if self.phase.lr is not None else rate(recipe, moment, self.epochs)
        for group, given in zip(self.optimiser.param_groups, self.phase.groups, strict=True):
            group["lr"] = base * given.lr


def plan_phases(method: Method[Any], recipe: Recipe) -> list[Running]:
    """Return a method's phases with their epochs and optimisers.

    Raises
    ------
    ConfigError
        If a phase trains nothing, two share a name, none is scored, or a parameter is in two groups.
    """
    phases, name = method.phases(), recipe.method
    names = [phase.name for phase in phases]
    if len(set(names)) != len(names) or not any(phase.scored for phase in phases):
        msg = f"method {name} has phases {', '.join(names) or 'none'}: names must differ, and one must be scored"
        raise ConfigError(msg, hint="phases() returns them; scored=True is the default")
    running, first = [], 0
    for phase in phases:
        if not phase.parameters:
            msg = f"phase {phase.name} of method {name} trains no parameters"
            raise ConfigError(msg, hint="phases() gives each phase groups of parameters")
        epochs = recipe.epochs if phase.epochs is None else phase.epochs
        running.append(Running(phase, first, epochs, _optimiser(phase, recipe)))
        first += epochs
    return running


def _optimiser(phase: Phase, recipe: Recipe) -> torch.optim.Optimizer:
    groups = [{"params": g.parameters, "weight_decay": recipe.weight_decay * g.weight_decay} for g in phase.groups]
    try:
        if recipe.optimiser == "sgd":
            nesterov = recipe.nesterov and recipe.momentum > 0
            return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov)
        kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
        return kind(groups, lr=recipe.lr, betas=recipe.betas)
    except ValueError as error:
        msg = f"phase {phase.name} of method {recipe.method}: {error}"
        raise ConfigError(msg, hint="each parameter belongs to one group") from error


def averaged(model: Method[Any], decay: float) -> AveragedModel:
    """Exponential moving average of a network's weights, which begins with its current ones; buffers are copied.

    Parameters
    ----------
    decay : float
        Share of the average that stays in a step; less in the first steps, ``(1 + step) / (10 + step)``, so that the
        beginning is forgotten.
    """

    def move(average: list[Tensor], weights: list[Tensor], count: Tensor | int) -> None:
        torch._foreach_lerp_(average, weights, 1 - min(decay, int(count) / (9 + int(count))))

    average = AveragedModel(model, multi_avg_fn=move)  # type: ignore[arg-type] # torch's types lack `lerp` of lists
    average.n_averaged.fill_(1)
    return average
