"""The training loop: class head first, then the localizer; resumable at any step."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from wsolpipe.contract.errors import ConfigError, RunFailed
from wsolpipe.metrics.protocol import Run, estimate_tau, figures, write_run
from wsoltrain import checkpoint
from wsoltrain.config import ItemConfig
from wsoltrain.crf import crf_loss
from wsoltrain.evaluation import Evaluator
from wsoltrain.losses import absolute_size, barrier_t, partial_cross_entropy
from wsoltrain.models import build
from wsoltrain.pixels import Pseudo
from wsoltrain.stream import Stream
from wsoltrain.views import maps_to_view

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from wsoltrain.config import Labelling
    from wsoltrain.models import Localizer
    from wsoltrain.recipe import Recipe
    from wsoltrain.tracker import Tracker

_log = logging.getLogger(__name__)


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
        Loader processes.
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
        What is learned.
    settings : Settings
        Where.
    trackers : list of Tracker
        Who is told.

    Raises
    ------
    WsolError
        As the stream, the evaluation and the networks do; all of it before the first step.
    """

    def __init__(self, recipe: Recipe, settings: Settings, trackers: list[Tracker]) -> None:
        self.recipe, self.settings, self.trackers = recipe, settings, trackers
        self.device = torch.device(settings.device)
        self.stream = Stream(
            ItemConfig(
                settings.labelling, root=settings.root, size=recipe.size, mean=recipe.mean, std=recipe.std,
                resize=recipe.resize or round(recipe.size * 8 / 7), flip=recipe.flip, seed=recipe.seed,
                one_per_group=recipe.one_per_group,
            ),
            batch_size=recipe.batch, workers=settings.workers, drop_last=True, pin_memory=self.device.type == "cuda",
        )  # fmt: skip
        if len(self.stream) == 0:
            msg = f"batch={recipe.batch} is larger than the {len(self.stream.rows)} rows that can be trained on"
            raise ConfigError(msg, hint=f"batch={len(self.stream.rows)} or less")
        splits = {"val": (settings.val, settings.annotators)}
        if settings.test:
            splits["test"] = (settings.test, ["gt"])
        self.evaluators = {
            kind: Evaluator(recipe, replace(settings.labelling, split=split), settings.root, names, settings.workers)
            for kind, (split, names) in splits.items()
        }
        rows = self.stream.items.rows
        self.classes = rows.classes or int(rows.labels.max()) + 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            model = build(
                recipe.model, recipe.backbone, weights=recipe.weights, size=recipe.size, classes=self.classes,
                model_args=recipe.model_args,
            )  # fmt: skip
        self.model: Localizer = model.to(self.device)
        self.sampler = recipe.pixel_sampler()
        self.optimisers = {"head": self._sgd(model.head_parameters()), "maps": self._sgd(model.map_parameters())}
        self.step = 0
        self.best: dict[str, float] = {}

    def _sgd(self, parameters: list[torch.nn.Parameter]) -> torch.optim.SGD:
        recipe = self.recipe
        nesterov = recipe.nesterov and recipe.momentum > 0
        return torch.optim.SGD(
            parameters, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, weight_decay=recipe.weight_decay
        )

    def fit(self) -> dict[str, Any]:
        """Train from where the folder's last checkpoint stands to the end; the best epoch by each annotator."""
        last = self.settings.out / "last.safetensors"
        if last.exists():
            self._resume(last)
        recipe, settings = self.recipe, self.settings
        while self.stream.epoch < recipe.head_epochs + recipe.epochs:
            epoch, phase = self.stream.epoch, "head" if self.stream.epoch < recipe.head_epochs else "maps"
            began = ready = time.perf_counter()
            waited, learned = 0.0, 0
            for batch in self.stream:
                waited += time.perf_counter() - ready
                told = self._learn(batch, phase, epoch)
                self.step, learned = self.step + 1, learned + 1
                self._tell("step", told | {"epoch": epoch, "phase": phase})
                if self.step % settings.save_every == 0:
                    self._save(last)
                ready = time.perf_counter()
            seconds = time.perf_counter() - began
            if learned:
                speed = {"seconds": round(seconds, 3), "wait_share": round(waited / seconds, 4), "steps": learned}
                self._tell("speed", speed | {"epoch": epoch, "phase": phase})
            if phase == "maps":
                self._evaluate(epoch - recipe.head_epochs)
            self._save(last)
        return {"best": self.best, "steps": self.step, "counts": self.stream.counts}

    def _learn(self, batch: Mapping[str, Tensor], phase: str, epoch: int) -> dict[str, float]:
        """One step: forward, losses, backward, update."""
        recipe, optimiser = self.recipe, self.optimisers[phase]
        self.model.train()
        for group in optimiser.param_groups:
            group["lr"] = self._rate(phase, epoch)
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        cuda = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.amp and cuda):
            logits = self.model.classify(batch["image"]) if phase == "head" else self.model(batch["image"]).logits
        parts = (
            {"classes": cross_entropy(logits.float(), batch["label"])}
            if phase == "head"
            else self._map_losses(logits.float(), batch, epoch)
        )
        told = {name: float(value.detach()) for name, value in parts.items()}
        loss = torch.stack([value for name, value in parts.items() if not name.startswith("count ")]).sum()
        if not math.isfinite(sum(told.values())):
            rows = ", ".join(map(str, batch["row"].tolist()))
            msg = f"the loss is no number at step {self.step} (epoch {epoch}, {phase}): {told}; rows {rows}"
            raise RunFailed(msg, hint=f"a lower lr than {recipe.lr:g}, or clip=1; what was saved before is intact")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], recipe.clip)
        optimiser.step()
        return told

    def _map_losses(self, logits: Tensor, batch: Mapping[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """Weighted losses of the maps, and how many images gave no labels."""
        recipe = self.recipe
        maps = maps_to_view(batch["maps"], batch["window"], recipe.size, grid_hw=batch.get("grid_hw"))
        pseudo = Pseudo(maps, batch["row"], batch.get("boxes"), batch.get("box_map"))
        drawn = self.sampler(pseudo, seed=recipe.seed, epoch=epoch)
        prob = logits.softmax(1)
        parts = {"pixels": recipe.pixel_weight * partial_cross_entropy(logits, drawn.labels)}
        if recipe.crf_weight:
            energy = crf_loss(
                prob, batch["rgb"], sigma_rgb=recipe.crf_sigma_rgb, sigma_xy=recipe.crf_sigma_xy,
                scale=recipe.crf_scale, sums_to_one=True,
            )  # fmt: skip
            parts["crf"] = recipe.crf_weight * energy
        if recipe.size_weight:
            parts["size"] = recipe.size_weight * absolute_size(prob, barrier_t(epoch - recipe.head_epochs))
        return parts | {f"count {name}": count.float() for name, count in drawn.counts.items()}

    def _rate(self, phase: str, epoch: int) -> float:
        """Learning rate: constant for the head; for the maps a factor every `lr_step` epochs, as long as it is felt."""
        recipe = self.recipe
        if phase == "head":
            return recipe.head_lr
        return max(1e-8, recipe.lr * recipe.lr_gamma ** ((epoch - recipe.head_epochs) // recipe.lr_step))

    def _evaluate(self, epoch: int) -> None:
        """Score the validation split, keep the figures, and the weights where an annotator likes them best."""
        settings = self.settings
        scores = {
            kind: each.run(self.model, self.device, thresholds=settings.thresholds)
            for kind, each in self.evaluators.items()
        }
        sums = scores["val"]
        test = {name: figures(each) for name, each in scores.get("test", {}).items()}
        entries: dict[str, Any] = {name: figures(each) for name, each in sums.items()}
        result = next(iter(sums.values())).result()
        if result["accuracy_top1"] is not None:
            entries["accuracy"] = result["accuracy_top1"]
        parameters = self.recipe.model_dump(mode="json")
        write_run(settings.out / "runs", Run(settings.out.name, epoch, entries, test, parameters))
        for name, each in sums.items():
            told = each.result()
            score = float(told["MaxBoxAcc"])  # type: ignore[arg-type]
            tau = estimate_tau(entries[name])
            self._tell("val", {"annotator": name, "epoch": epoch, "MaxBoxAcc": score, "iou": told["iou"], "tau": tau})
            _log.info("epoch %d: MaxBoxAcc %.2f against %s at tau %.3f", epoch, score, name, tau)
            if score > self.best.get(name, -1.0):
                self.best[name] = score
                chosen = {"epoch": epoch, "tau": tau, "score": score, "annotator": name}
                state = chosen | {"recipe": parameters, "classes": self.classes}
                checkpoint.save(settings.out / f"best-{name}.safetensors", self.model, state, {})

    def _save(self, path: Path) -> None:
        state = {
            "step": self.step,
            "best": self.best,
            "stream": self.stream.state_dict(),
            "recipe": self.recipe.model_dump(mode="json"),
        }
        checkpoint.save(path, self.model, state, self.optimisers)

    def _resume(self, path: Path) -> None:
        """Go on where a checkpoint was written, with the same recipe but for the number of epochs."""
        state = checkpoint.load(path, self.model, self.optimisers)
        own, theirs = self.recipe.model_dump(mode="json"), state["recipe"]
        changed = [name for name in own if own[name] != theirs.get(name) and name not in ("epochs", "amp")]
        if changed:
            told = ", ".join(f"{name} was {theirs.get(name)}, is {own[name]}" for name in changed)
            msg = f"{path} is of another run: {told}"
            raise ConfigError(msg, hint="out=FOLDER for a new run, or the settings of the first one")
        self.stream.load_state_dict(state["stream"])
        self.step, self.best = state["step"], state["best"]
        _log.info("resumed at step %d, epoch %d", self.step, self.stream.epoch)

    def _tell(self, kind: str, told: dict[str, Any]) -> None:
        for tracker in self.trackers:
            tracker.write(kind, self.step, told)
