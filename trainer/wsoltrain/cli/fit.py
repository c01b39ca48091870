"""``wsoltrain fit``: train a localizer on the pseudo-labels of a store; called again, it resumes where it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wsolpipe.keys.words import PREFIX
from wsoltrain.cli.command import make_command, show, show_trainings
from wsoltrain.cli.progress import FitProgress
from wsoltrain.runs.keys import TRAINING as KEYS
from wsoltrain.runs.many import Site, split_site, sweep_trainings
from wsoltrain.runs.settle import read_recipe_words, settle
from wsoltrain.runs.train import train_as_one_of_many

if TYPE_CHECKING:
    from wsoltrain.training.loop import Trainer


@make_command(
    "fit",
    KEYS,
    recipe=True,
    example="wsoltrain fit recipe=dips dataset=demo store=wsol-store epochs=8",
    json_help="Print the result as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Train a localizer; called again, resume where it stopped. Under torchrun, by several processes.

    sweep.KEY=a,b,c trains once for each value and ends with one table; several sweeps give all combinations.
    """
    rest, profile = split_site(words)
    values, changes = read_recipe_words([word for word in rest if not word.startswith(PREFIX)])
    site = Site(values["cluster"], values["parallel"], profile)
    if not site.here or any(word.startswith(PREFIX) for word in rest):
        show_trainings(*sweep_trainings(rest), site, as_json=as_json)
        return
    ended = train_as_one_of_many(settle(values, changes), _watch)
    if ended is None:
        return
    trainer, result = ended
    best = ", ".join(f"{score:.1f} by {name}" for name, score in trainer.best.items())
    show(result, [f"{result['out']}: {trainer.step} steps; best validation score {best}"], as_json=as_json)


def _watch(trainer: Trainer) -> FitProgress:
    """Say how large the network is; the tracker that shows how far the training is."""
    from wsoltrain.inference.complexity import complexity

    counted = complexity(trainer.model, trainer.recipe.size)["heads"]
    size = f"{counted['parameters'] / 1e6:.3f} M parameters, {counted['macs'] / 1e9:.3f} G multiply-accumulates"
    click.echo(f"{trainer.recipe.method}: {size} an image, without what is frozen", err=True)
    return FitProgress(trainer.steps, sum(running.epochs for running in trainer.phases.values()))
