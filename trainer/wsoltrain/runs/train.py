"""A training carried out in this process, alone or as one of several that share its batches."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wsoltrain.runs.settle import settle_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from wsoltrain.runs.settle import Settled
    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.settings import Settings
    from wsoltrain.training.tracker import Tracker


@contextmanager
def open_trainer(recipe: Recipe, settings: Settings, track: Iterable[str], **more: Any) -> Iterator[Trainer]:
    """Hold the folder of a run with its trackers and its record; `more` goes to `Trainer`.

    Raises
    ------
    WsolError
        If another process trains into the folder, or as `Trainer` raises it.
    """
    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.run_lock import hold
    from wsoltrain.training.run_record import record_run
    from wsoltrain.training.tracker import PictureTracker, open_trackers

    written = recipe.model_dump(mode="json")
    with hold(settings.out) as lock, open_trackers(",".join(track), settings.out, written) as trackers:
        trainer = Trainer(recipe, settings, [lock, *trackers], **more)
        trainer.trackers.append(record_run(trainer))
        if shown := [tracker for tracker in trackers if isinstance(tracker, PictureTracker)]:
            from wsoltrain.inference.panels import Panels

            trainer.trackers.append(Panels(trainer, shown))
        yield trainer


def train(settled: Settled) -> Trainer:
    """Carry out a training, or what is left of it, without a word on standard output; returns it ended.

    Raises
    ------
    WsolError
        As the training raises it.
    """
    with open_trainer(settled.recipe, settled.settings, settled.values["track"]) as trainer:
        trainer.fit()
    return trainer


def train_words(words: Iterable[str]) -> None:
    """Carry out a training by the words of ``wsoltrain fit``; raises as `settle_words` and `train`."""
    train(settle_words(words))


def train_as_one_of_many(
    settled: Settled, watch: Callable[[Trainer], Tracker]
) -> tuple[Trainer, dict[str, Any]] | None:
    """Carry out a training in each of the processes that torchrun started, or in this one alone.

    Parameters
    ----------
    settled : Settled
    watch : callable
        Makes a further tracker of the first process.

    Returns
    -------
    (Trainer, dict) or None
        The training and its result in the first process, None in the others.
    """
    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.parallel import close_group, open_group

    recipe, settings = settled.recipe, settled.settings
    group = open_group(settings.device)
    if group.world > 1 and settings.device == "cuda":
        settings = replace(settings, device=f"cuda:{group.local}")
    if not group.first:
        logging.getLogger().setLevel(logging.WARNING)
        Trainer(recipe, settings, [], group=group).fit()
        close_group(group)
        return None
    with open_trainer(recipe, settings, settled.values["track"], group=group) as trainer:
        trainer.trackers.append(watch(trainer))
        result = {"out": str(settings.out), **trainer.fit()}
    close_group(group)
    return trainer, result
