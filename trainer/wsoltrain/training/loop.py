"""The training loop: the phases of a method, one after another; resumable at any step, by one process or several."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from wsolpipe.contract.errors import ConfigError, RunFailed
from wsoltrain.methods.base import Batch, Method, Task, checked
from wsoltrain.pseudo.draws import RowDraws, describe_missing
from wsoltrain.training import checkpoint
from wsoltrain.training.annotators import CLS
from wsoltrain.training.optimisation import Moment, Running, averaged, plan_phases
from wsoltrain.training.parallel import Group, shares, synchronised
from wsoltrain.training.scoreboard import Scoreboard
from wsoltrain.training.settings import Settings, open_stream, read_artifacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.tracker import Tracker

_log = logging.getLogger(__name__)
ALONE = Group()


class Trainer:
    """One run: network, stream, optimisers, and where it stands.

    Parameters
    ----------
    recipe : Recipe
        What is learned; its batch is that of all processes together.
    settings : Settings
        Where.
    trackers : list of Tracker
        Receive the figures of the first process.
    group : Group
        Processes that train together.

    Attributes
    ----------
    model : Method
        What is trained.
    phases : dict of str to Running
        Its phases by name, in their order.
    step, steps : int
        Steps done, and steps of the whole run.

    Raises
    ------
    WsolError
        As the stream, the evaluation and the method do; all of it before the first step.
    """

    def __init__(self, recipe: Recipe, settings: Settings, trackers: list[Tracker], *, group: Group = ALONE) -> None:
        self.recipe, self.settings, self.group = recipe, settings, group
        self.trackers = trackers if group.first else []
        self.device = torch.device(settings.device)
        self.stream = open_stream(recipe, settings, group)
        rows = self.stream.items.rows
        self.classes = rows.classes or int(rows.labels.max()) + 1
        names = [rows.class_name(number) for number in range(self.classes)]
        self.artifacts = read_artifacts(settings.labelling, recipe.reads().artifacts)
        self.scoreboard = Scoreboard(recipe, settings, names, self.artifacts.files) if group.first else None
        self.model = synchronised(recipe.build(self._task(names)).to(self.device), group, self.device)
        self.group.spread(self.model.saved().values())
        self.phases = {running.phase.name: running for running in plan_phases(self.model, recipe)}
        self._check_prediction()
        self.average = averaged(self.model, recipe.ema) if recipe.ema is not None else None
        self.step = 0
        self.steps = -(-len(self.stream) // recipe.accumulate) * sum(item.epochs for item in self.phases.values())

    def _task(self, names: list[str]) -> Task:
        recipe, device = self.recipe, self.device
        return Task(
            self.classes, recipe.size, recipe.seed, recipe.mean, recipe.std, self.settings.labelling,
            self.artifacts.files, names, device, self.group, lap=lambda name: self.lap(name),
            autocast=partial(torch.autocast, device.type, torch.bfloat16, enabled=recipe.amp),
        )  # fmt: skip

    def _check_prediction(self) -> None:
        """Refuse a method whose maps cannot be scored, before the first step."""
        self.model.eval()
        with torch.no_grad():
            image = torch.zeros(2, 3, self.recipe.size, self.recipe.size, device=self.device)
            found = checked(self.model.predict(image), len(image), self.recipe.method)
        if found.scores is None and CLS in self.settings.annotators:
            msg = f"by=cls: {self.recipe.method} names no classes, so it has no accuracy to be chosen by"
            raise ConfigError(msg, hint="by= another annotator")

    @property
    def best(self) -> dict[str, float]:
        """Best validation score so far by each annotator; known to the first process."""
        return self.scoreboard.best if self.scoreboard is not None else {}

    @property
    def shown(self) -> Method[Any]:
        """Network that is evaluated and kept: the one with averaged weights where there are any."""
        return self.model if self.average is None else cast("Method[Any]", self.average.module)

    def fit(self) -> dict[str, Any]:
        """Train from the folder's last checkpoint to the end; return the best score by each annotator."""
        last = self.settings.out / "last.safetensors"
        begun = checkpoint.exists(last)
        self.group.agree(int(begun), f"whether {last} exists")
        if begun:
            self._resume(last)
        scored = int(self.model.warm)
        if scored and not self.step:
            self._evaluate(0)
        for running in self.phases.values():
            while self.stream.epoch < running.first + running.epochs:
                epoch = self.stream.epoch
                self._train_epoch(running, last)
                if running.phase.scored:
                    self._evaluate(scored + epoch - running.first)
                self._save(last)
            scored += running.epochs if running.phase.scored else 0
        if not scored:
            self._evaluate(0)
        return {"best": self.best, "steps": self.step, "counts": self.stream.counts}

    def _train_epoch(self, running: Running, last: Path) -> None:
        """Train on the rest of the stream's current epoch."""
        stream, accumulate = self.stream, self.recipe.accumulate
        epoch, phase = stream.epoch, running.phase.name
        taken = stream.position // self.group.share(self.recipe.batch)
        steps, first = -(-len(stream) // accumulate), taken // accumulate
        began = ready = time.perf_counter()
        waited, learned = 0.0, 0
        counts: Counter[str] = Counter()
        for batches in _grouped(stream if stream.left else (), accumulate):
            waited += time.perf_counter() - ready
            self.lap("wait")
            moment = Moment(epoch - running.first, first + learned, steps)
            figures = self.learn(batches, running, moment)
            self.step, learned = self.step + 1, learned + 1
            self._report("step", figures | {"epoch": epoch, "phase": phase})
            counts.update({name: value for name, value in figures.items() if name.startswith("count ")})
            if self.step % self.settings.save_every == 0:
                self._save(last)
            self.lap("keeping")
            ready = time.perf_counter()
        seconds = time.perf_counter() - began
        if learned:
            speed = {"seconds": round(seconds, 3), "wait_share": round(waited / seconds, 4), "steps": learned}
            self._report("speed", speed | {"epoch": epoch, "phase": phase})
            missing = describe_missing(counts, learned * accumulate * self.recipe.batch)
            if missing and self.group.first:
                _log.warning("epoch %d: %s", epoch, missing)
        stream.set_epoch(epoch + 1)

    def learn(self, batches: list[Batch], running: Running, moment: Moment) -> dict[str, float]:
        """Take one step: losses, backward, update.

        Parameters
        ----------
        batches : list of mapping of str to Tensor
            This process's share of each batch, of the stream; gradients are averaged over them.
        running : Running
            Phase that is trained.
        moment : Moment
            Epoch and step of the phase.

        Returns
        -------
        dict of str to float
            Losses (means) and counts (sums) of all batches.

        Raises
        ------
        RunFailed
            If a loss is NaN or infinite; no weight is changed then.
        """
        recipe, optimiser, epoch = self.recipe, running.optimiser, running.first + moment.epoch
        self._set_modes(running)
        torch.manual_seed(hash((recipe.seed, self.step, self.group.rank)))  # of dropout, where a network has any
        running.set_rates(recipe, moment)
        optimiser.zero_grad()
        losses: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        for batch in batches:
            batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
            self.lap("copy")
            batch = self.model.augment(batch, RowDraws(recipe.seed, epoch, batch["row"]))
            parts, counted = self.model.losses(batch, running.phase.name, epoch)
            loss = torch.stack(list(parts.values())).sum()
            (loss / len(batches) if len(batches) > 1 else loss).backward()  # type: ignore[no-untyped-call]
            self.lap("backward")
            for name, value in parts.items():
                losses[name] = losses.get(name, 0) + value.detach() / len(batches)
            for name, value in counted.items():
                counts[name] = counts.get(name, 0) + value
        trained = running.phase.parameters
        self.group.average_gradients(trained)
        figures = self._figures(losses, counts, batches, f"epoch {epoch}, {running.phase.name}")
        if recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, recipe.clip)
        optimiser.step()
        self.model.after_step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.lap("optimiser")
        return figures

    def _set_modes(self, running: Running) -> None:
        """Put the network into training mode, but for what the phase or the recipe keeps as it is."""
        self.model.train()
        for part in running.phase.frozen:
            part.eval()
        if self.recipe.frozen_bn:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def _figures(
        self, losses: Mapping[str, Tensor], counts: Mapping[str, Tensor], batches: list[Batch], where: str
    ) -> dict[str, float]:
        """Losses and counts as numbers; a loss that is NaN or infinite ends the run, in all processes alike."""
        numbers = shares([*losses.values(), *counts.values()], self.group)
        figures = dict(zip(losses, numbers, strict=False))
        if not math.isfinite(sum(figures.values())):
            rows = ", ".join(str(row) for batch in batches for row in batch["row"].tolist())
            msg = f"the loss is NaN or infinite at step {self.step} ({where}): {figures}; rows {rows}"
            raise RunFailed(msg, hint=f"a lower lr than {self.recipe.lr:g}, or clip=1; earlier checkpoints are intact")
        world = self.group.world
        return figures | {
            f"count {name}": world * value for name, value in zip(counts, numbers[len(losses) :], strict=True)
        }

    def _evaluate(self, epoch: int) -> None:
        """Score an epoch in the first process, by averaged weights where there are any; the others wait."""
        if self.scoreboard is not None:
            for line in self.scoreboard.score(self.shown, self.device, epoch):
                self._report("val", line)
        self.group.wait()

    def _save(self, path: Path) -> None:
        if not self.group.first:
            return
        state = {
            "step": self.step,
            "best": self.best,
            "ranks": self.scoreboard.ranks if self.scoreboard is not None else {},
            "stream": self.stream.state_dict(),
            "recipe": self.recipe.model_dump(mode="json"),
            "artifacts": self.artifacts.keys,
        }
        optimisers = {name: running.optimiser for name, running in self.phases.items()}
        checkpoint.save(path, self.model, state, optimisers, self.shown if self.average is not None else None)

    def _resume(self, path: Path) -> None:
        """Continue from a checkpoint, of the same recipe but for the number of epochs."""
        saved = checkpoint.read_last(path, "stream")
        state = saved.state
        changed = self.recipe.changed_since(state["recipe"])
        if not changed and state.get("artifacts", {}) != self.artifacts.keys:
            changed = f"artifacts were {state['artifacts']}, are {self.artifacts.keys}"
        if changed:
            msg = f"{path} is of another run: {changed}"
            raise ConfigError(msg, hint="out=FOLDER for a new run, or the settings of the first one")
        optimisers = {name: running.optimiser for name, running in self.phases.items()}
        checkpoint.put_back(saved, self.model, optimisers, self.shown if self.average is not None else None)
        if self.average is not None:
            self.average.n_averaged.fill_(1 + state["step"])
        self.stream.load_state_dict(state["stream"])
        self.step = state["step"]
        if self.scoreboard is not None:
            self.scoreboard.restore(state["best"], state.get("ranks"))
        self.group.agree(self.step, "the step to resume from")
        self.group.wait()  # no process writes while another reads
        _log.info("resumed at step %d, epoch %d", self.step, self.stream.epoch)

    def _report(self, kind: str, figures: dict[str, Any]) -> None:
        for tracker in self.trackers:
            tracker.write(kind, self.step, figures)

    def lap(self, done: str) -> None:
        """Called after each part of a step; a subclass may time them."""


def _grouped(batches: Iterable[Batch], count: int) -> Iterator[list[Batch]]:
    """Lists of `count` batches; the last one may be shorter."""
    left = iter(batches)
    while group := list(islice(left, count)):
        yield group
