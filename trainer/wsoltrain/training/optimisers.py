"""Phases as they run: which epochs each has, its optimiser, and the learning rates of its groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from wsolpipe.contract.errors import ConfigError
from wsoltrain.training.schedules import Moment, rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsoltrain.methods.base import Method, Phase
    from wsoltrain.training.recipe import Recipe

    Groups = list[dict[str, Any]]


def _sgd(groups: Groups, recipe: Recipe) -> torch.optim.Optimizer:
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov)


def _adamw(groups: Groups, recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas)


OPTIMISERS: dict[str, Callable[[Groups, Recipe], torch.optim.Optimizer]] = {"sgd": _sgd, "adamw": _adamw}
"""``optimiser`` -> what makes it of groups that hold parameters and their weight decay."""


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
    groups: Groups = [
        {"params": group.parameters, "weight_decay": recipe.weight_decay * group.weight_decay} for group in phase.groups
    ]
    try:
        return OPTIMISERS[recipe.optimiser](groups, recipe)
    except ValueError as error:
        msg = f"phase {phase.name} of method {recipe.method}: {error}"
        raise ConfigError(msg, hint="each parameter belongs to one group") from error
