"""``wsoltrain fit``: train a localizer on the pseudo-labels of a store; called again, it resumes where it stopped."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.keys.console import LINE_SECONDS, duration
from wsolpipe.keys.words import PREFIX
from wsoltrain.cli.command import make_command, show, show_trainings
from wsoltrain.runs.many import Site, split_site, sweep_trainings, train_as_one_of_many
from wsoltrain.runs.settle import TRAINING as KEYS
from wsoltrain.runs.settle import read_recipe_words, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.progress import Progress, TaskID

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
    from wsoltrain.runs.verdict import doubts_of  # torch takes seconds to import

    reasons = doubts_of(trainer)
    head = f"{result['out']}: {trainer.step} steps; best validation score {best}"
    show({**result, "doubts": reasons}, [head, *(f"  note: {reason}" for reason in reasons)], as_json=as_json)


def _watch(trainer: Trainer) -> FitProgress:
    """Say how large the network is; the tracker that shows how far the training is."""
    from wsoltrain.inference.model import complexity

    counted = complexity(trainer.model, trainer.recipe.size)["heads"]
    size = f"{counted['parameters'] / 1e6:.3f} M parameters, {counted['macs'] / 1e9:.3f} G multiply-accumulates"
    click.echo(f"{trainer.recipe.method}: {size} an image, without what is frozen", err=True)
    return FitProgress(trainer.steps, sum(running.epochs for running in trainer.phases.values()))


_log = logging.getLogger(__name__)


class FitProgress:
    """A tracker that shows step, epoch, rate, time left and the loss.

    Parameters
    ----------
    steps : int
        Steps of the whole run.
    epochs : int
        Epochs of the whole run.
    live : bool, optional
        Whether there is a terminal for a bar.
    clock : callable
        Seconds; monotonic.
    """

    def __init__(
        self, steps: int, epochs: int, *, live: bool | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.steps, self.epochs, self.clock = steps, epochs, clock
        self.live = sys.stderr.isatty() if live is None else live
        self.first: tuple[int, float] | None = None
        self.shown = clock()
        self._bar: tuple[Progress, TaskID] | None = None

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Count a step; show it if it is time."""
        if kind != "step":
            return
        now = self.clock()
        if self.first is None:
            self.first = (step - 1, now)
        if self.live:
            progress, task = self._bar or self._open()
            progress.update(task, completed=step, text=self.describe(step, figures, now))
        elif now - self.shown >= LINE_SECONDS:
            self.shown = now
            _log.info("step %d of %d, %s", step, self.steps, self.describe(step, figures, now))

    def describe(self, step: int, figures: Mapping[str, Any], now: float) -> str:
        """Like ``epoch 2 of 6, 3.4 steps/s, 1 min 20 s left, loss 0.413``."""
        assert self.first is not None
        began, since = self.first
        parts = [f"epoch {figures['epoch'] + 1} of {self.epochs}"]
        if now > since and step > began:
            rate = (step - began) / (now - since)
            parts += [f"{rate:.1f} steps/s", f"{duration((self.steps - step) / rate)} left"]
        loss = sum(value for name, value in figures.items() if isinstance(value, float) and " " not in name)
        return ", ".join([*parts, f"loss {loss:.3f}"])

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar[0].stop()

    def _open(self) -> tuple[Progress, TaskID]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        progress = Progress(
            BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
            console=Console(stderr=True, highlight=False),
        )  # fmt: skip
        progress.start()
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)  # lines go above the bar
        self._bar = (progress, progress.add_task("", total=self.steps, text=""))
        return self._bar
