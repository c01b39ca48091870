"""The training loop: class head first, then the localizer; resumable at any step, by one process or several."""

from __future__ import annotations

import logging
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from wsolpipe.contract.errors import ConfigError, RunFailed
from wsoltrain.data.config import ItemConfig
from wsoltrain.data.stream import Stream
from wsoltrain.methods.localizers import build
from wsoltrain.networks.judge import load_judge
from wsoltrain.training import checkpoint
from wsoltrain.training.average import Average
from wsoltrain.training.objective import Objective
from wsoltrain.training.parallel import Group, shares, synchronised
from wsoltrain.training.scoreboard import Scoreboard

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from wsoltrain.data.config import Labelling
    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.tracker import Tracker

_log = logging.getLogger(__name__)
ALONE = Group()


@dataclass(frozen=True)
class Settings:
    """Where a run reads and writes; nothing here changes what is learned.

    Attributes
    ----------
    labelling : Labelling
        Training split and stages.
    root : str
        Folder of the image files.
    out : Path
        Folder of checkpoints and figures.
    val : str
        Split that is evaluated after each epoch.
    annotators : list of str
        Whose boxes choose the model, the first one above all: stages, or ``gt``.
    test : str or None
        Split scored against its ground truth after each epoch, for a table that shows what choosing without it costs.
    workers : int
        Loader processes of each training process.
    save_every : int
        Steps between checkpoints; one is written after each epoch besides.
    device : str
        Of torch.
    thresholds : int
        Of the evaluations.
    """

    labelling: Labelling
    root: str
    out: Path
    val: str = "val"
    annotators: list[str] = field(default_factory=lambda: ["proposals"])
    test: str | None = None
    workers: int = 2
    save_every: int = 200
    device: str = "cpu"
    thresholds: int = 200


class Trainer:
    """One run: network, stream, optimisers, and where it stands.

    Parameters
    ----------
    recipe : Recipe
        What is learned; its batch is that of all processes together.
    settings : Settings
        Where.
    trackers : list of Tracker
        Who is told, by the first process.
    group : Group
        Processes that train together.

    Raises
    ------
    WsolError
        As the stream, the evaluation and the networks do; all of it before the first step.
    """

    def __init__(self, recipe: Recipe, settings: Settings, trackers: list[Tracker], *, group: Group = ALONE) -> None:
        self.recipe, self.settings, self.group = recipe, settings, group
        self.trackers = trackers if group.first else []
        self.device = torch.device(settings.device)
        self.stream = self._open_stream()
        rows = self.stream.items.rows
        self.classes = rows.classes or int(rows.labels.max()) + 1
        names = [rows.class_name(number) for number in range(self.classes)]
        self.scoreboard = Scoreboard(recipe, settings, names) if group.first else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            model = build(
                recipe.model, recipe.backbone, weights=recipe.weights, size=recipe.size, classes=self.classes,
                model_args=recipe.model_args, temperature=recipe.temperature,
            )  # fmt: skip
        self.model = synchronised(model.to(self.device), group, self.device)
        if recipe.head_epochs and not self.model.has_head:
            msg = f"{recipe.model} has no class head to be trained"
            raise ConfigError(msg, hint="head_epochs=0")
        self.group.spread(self.model.saved().values())
        judge = None
        if recipe.cls_weight:
            judge = load_judge(settings.labelling, file=recipe.classifier, classes=self.classes).to(self.device)
        self.objective = Objective(recipe, recipe.pixel_sampler(), group, judge, lambda name: self.lap(name))
        self.optimisers = {
            name: self._sgd(parameters)
            for name, parameters in (("head", self.model.head_parameters()), ("maps", self.model.map_parameters()))
            if parameters
        }
        self.average = Average(self.model, recipe.ema) if recipe.ema is not None else None
        self.step = 0

    def _open_stream(self) -> Stream:
        recipe, settings = self.recipe, self.settings
        stream = Stream(
            ItemConfig(
                settings.labelling, root=settings.root, size=recipe.size, mean=recipe.mean, std=recipe.std,
                resize=recipe.resize or round(recipe.size * 8 / 7), flip=recipe.flip, seed=recipe.seed,
                one_per_group=recipe.one_per_group,
            ),
            batch_size=self.group.share(recipe.batch), workers=settings.workers, rank=self.group.rank,
            world=self.group.world, drop_last=True, pin_memory=self.device.type == "cuda",
        )  # fmt: skip
        if len(stream) == 0:
            msg = f"batch={recipe.batch} is larger than the {len(stream.rows)} rows that can be trained on"
            raise ConfigError(msg, hint=f"batch={len(stream.rows)} or less")
        return stream

    def _sgd(self, parameters: list[torch.nn.Parameter]) -> torch.optim.SGD:
        recipe = self.recipe
        nesterov = recipe.nesterov and recipe.momentum > 0
        return torch.optim.SGD(
            parameters, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, weight_decay=recipe.weight_decay
        )

    @property
    def best(self) -> dict[str, float]:
        """Best validation MaxBoxAcc so far by each annotator; known to the first process."""
        return self.scoreboard.best if self.scoreboard is not None else {}

    def fit(self) -> dict[str, Any]:
        """Train from where the folder's last checkpoint stands to the end; the best epoch by each annotator."""
        last = self.settings.out / "last.safetensors"
        self.group.agree(int(last.exists()), f"whether {last} exists")
        if last.exists():
            self._resume(last)
        recipe, settings = self.recipe, self.settings
        while self.stream.epoch < recipe.head_epochs + recipe.epochs:
            epoch, phase = self.stream.epoch, "head" if self.stream.epoch < recipe.head_epochs else "maps"
            began = ready = time.perf_counter()
            waited, learned = 0.0, 0
            for batch in self.stream:
                waited += time.perf_counter() - ready
                self.lap("wait")
                told = self.learn(batch, phase, epoch)
                self.step, learned = self.step + 1, learned + 1
                self._tell("step", told | {"epoch": epoch, "phase": phase})
                if self.step % settings.save_every == 0:
                    self._save(last)
                self.lap("keeping")
                ready = time.perf_counter()
            seconds = time.perf_counter() - began
            if learned:
                speed = {"seconds": round(seconds, 3), "wait_share": round(waited / seconds, 4), "steps": learned}
                self._tell("speed", speed | {"epoch": epoch, "phase": phase})
            if phase == "maps":
                self._evaluate(epoch - recipe.head_epochs)
            self._save(last)
        return {"best": self.best, "steps": self.step, "counts": self.stream.counts}

    def learn(self, batch: Mapping[str, Tensor], phase: str, epoch: int) -> dict[str, float]:
        """One step: forward, losses, backward, update.

        Parameters
        ----------
        batch : mapping of str to Tensor
            This process's share, of the stream.
        phase : "head" or "maps"
            What is trained.
        epoch : int
            Of the whole run.

        Returns
        -------
        dict of str to float
            Losses and counts of the whole batch.

        Raises
        ------
        RunFailed
            If a loss is no number; no weight is changed then.
        """
        recipe, optimiser = self.recipe, self.optimisers[phase]
        self.model.train()
        torch.manual_seed(hash((recipe.seed, self.step, self.group.rank)))  # of dropout, where a network has any
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate(phase, epoch)
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        self.lap("copy")
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.amp and self.device.type == "cuda"):
            logits = self.model.classify(batch["image"]) if phase == "head" else self.model(batch["image"]).logits
        self.lap("forward")
        counts: Mapping[str, Tensor] = {}
        if phase == "head":
            parts = self.objective.head(logits.float(), batch)
        else:
            parts, counts = self.objective.maps(logits.float(), batch, epoch)
        optimiser.zero_grad()
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        self.lap("backward")
        trained = optimiser.param_groups[0]["params"]
        self.group.average_gradients(trained)
        told = self._told(parts, counts, batch["row"], phase, epoch)
        if recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, recipe.clip)
        optimiser.step()
        if self.average is not None:
            self.average.update(self.model, self.step)
        self.lap("optimiser")
        return told

    def _told(
        self, parts: Mapping[str, Tensor], counts: Mapping[str, Tensor], rows: Tensor, phase: str, epoch: int
    ) -> dict[str, float]:
        """Losses and counts as numbers, which end a run that has lost its way, on all processes alike."""
        numbers = shares([*parts.values(), *counts.values()], self.group)
        told = dict(zip(parts, numbers, strict=False))
        if not math.isfinite(sum(told.values())):
            where = f"at step {self.step} (epoch {epoch}, {phase}): {told}; rows {', '.join(map(str, rows.tolist()))}"
            msg = f"the loss is no number {where}"
            raise RunFailed(msg, hint=f"a lower lr than {self.recipe.lr:g}, or clip=1; what was saved before is intact")
        world = self.group.world
        return told | {
            f"count {name}": world * value for name, value in zip(counts, numbers[len(parts) :], strict=True)
        }

    def _evaluate(self, epoch: int) -> None:
        """Let the first process score the epoch, by averaged weights where there are any; the others wait."""
        if self.scoreboard is not None:
            with self.average.within(self.model) if self.average is not None else nullcontext():
                lines = self.scoreboard.score(self.model, self.device, epoch)
            for line in lines:
                self._tell("val", line)
        self.group.wait()

    def _save(self, path: Path) -> None:
        if not self.group.first:
            return
        recipe = self.recipe.model_dump(mode="json")
        state = {"step": self.step, "best": self.best, "stream": self.stream.state_dict(), "recipe": recipe}
        checkpoint.save(path, self.model, state, self.optimisers, self.average)

    def _resume(self, path: Path) -> None:
        """Go on where a checkpoint was written, with the same recipe but for the number of epochs."""
        changed = self.recipe.changed_since(checkpoint.state_of(path)["recipe"])
        if changed:
            msg = f"{path} is of another run: {changed}"
            raise ConfigError(msg, hint="out=FOLDER for a new run, or the settings of the first one")
        state = checkpoint.load(path, self.model, self.optimisers, self.average)
        self.stream.load_state_dict({**state["stream"], "rank": self.group.rank})
        self.step = state["step"]
        self.best.update(state["best"])
        self.group.agree(self.step, "the step to go on from")
        self.group.wait()  # none writes while another reads
        _log.info("resumed at step %d, epoch %d", self.step, self.stream.epoch)

    def _tell(self, kind: str, told: dict[str, Any]) -> None:
        for tracker in self.trackers:
            tracker.write(kind, self.step, told)

    def lap(self, done: str) -> None:
        """Called after each part of a step; replaced by who wants to time them."""
