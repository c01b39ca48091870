"""Epochs scored on validation: their figures for ``select``, and the weights that each annotator likes best."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.contract.writing import writing
from wsolpipe.metrics.cut_boxes import CutBoxes
from wsolpipe.metrics.kept_maps import SUFFIX, KeptMaps
from wsolpipe.metrics.protocol import Run, rank, write_run
from wsolpipe.networks.saved_state import previous
from wsoltrain.training import checkpoint
from wsoltrain.training.annotators import CLS, read_annotators
from wsoltrain.training.evaluation import Evaluator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from wsolpipe.evaluate.frame import FramedBatch
    from wsolpipe.evaluate.map_scores import MapScores
    from wsoltrain.methods.base import Method
    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.settings import Settings

_log = logging.getLogger(__name__)
OUTCOMES = "outcomes"
"""Folder of a run with `CutBoxes` of the validation split, `KeptMaps` where its truth is masks, a file an epoch."""


class Scoreboard:
    """Scores epochs of one run.

    Parameters
    ----------
    recipe : Recipe
        What is learned.
    settings : Settings
        Splits, annotators and the run's folder.
    class_names : list of str
        Kept with the best weights, for predictions.
    artifacts : mapping of str to bytes, optional
        Files that the method is built from; kept likewise.

    Attributes
    ----------
    best : dict of str to float
        Best score so far by each annotator: the settings' metric; accuracy for ``cls``.
    ranks : dict of str to list of float
        That score and what breaks ties (`wsolpipe.metrics.protocol.rank`).
    latest : dict of str to MapScores
        Scores of the last epoch on validation, by annotator.

    Raises
    ------
    WsolError
        As `Evaluator`.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: Settings,
        class_names: list[str],
        artifacts: Mapping[str, bytes] | None = None,
    ) -> None:
        self.recipe, self.settings, self.class_names, self.artifacts = recipe, settings, class_names, artifacts
        splits = {"val": (settings.val, settings.annotators)}
        if settings.test:
            splits["test"] = (settings.test, ["gt"])
        self.annotators = {each.name: each for each in read_annotators(settings.annotators)}
        self.evaluators = {
            kind: Evaluator(
                recipe, replace(settings.labelling, split=split), settings.root, names, settings.workers,
                settings.masks, settings.metric, settings.val_rows_per_class if kind == "val" else None,
            )
            for kind, (split, names) in splits.items()
        }  # fmt: skip
        self.ranks: dict[str, list[float]] = {}
        self.latest: dict[str, MapScores] = {}

    @property
    def best(self) -> dict[str, float]:
        """Best score so far by each annotator."""
        return {name: height[0] for name, height in self.ranks.items()}

    def _weights(self, annotator: str) -> Path:
        """File of the best weights by an annotator."""
        return self.settings.out / self.annotators[annotator].file_name

    def restore(self, best: Mapping[str, float], ranks: Mapping[str, list[float]] | None) -> None:
        """Take up the best scores of a run that continues, and what breaks ties, which older checkpoints lack.

        Weights and scores of annotators that are not asked for now stay as they are.

        Raises
        ------
        ConfigError
            If the annotator that decides now has seen no epoch so far, and others have.
        DataError
            If the weights with one of these scores are damaged or gone: no later epoch brings them back.
        """
        first = self.settings.first.name
        if best and first not in best:
            was = " and ".join(sorted(best))
            msg = f"the epochs of {self.settings.out} so far were judged by {was}; {first} has seen none of them"
            raise ConfigError(msg, hint="by= as before to go on, or out=FOLDER for a new run")
        for name, score in best.items():
            if name not in self.annotators:
                continue
            path = self._weights(name)
            try:
                found = checkpoint.read_last(path).state["score"]
            except DataError:
                found = -math.inf
            if found < score:
                msg = f"{path} is damaged or missing: it held the best weights so far, {score:.2f} by {name}"
                raise DataError(msg, hint=f"put it back from a backup, or remove {path.parent} to train again")
            if not path.exists():  # stopped between the two renames of a save, or set aside as damaged just now
                previous(path).replace(path)
        self.ranks.update(ranks or {name: [score] for name, score in best.items()})

    def score(self, model: Method[Any], device: torch.device, epoch: int) -> list[dict[str, Any]]:
        """Score an epoch; a line of figures on validation for each annotator, the one that chooses first."""
        settings = self.settings
        boxes: list[CutBoxes] = []
        masks: list[KeptMaps] = []
        truths, side = self.evaluators["val"].truths.values(), model.frame_side
        unit = settings.outcomes and self.evaluators["val"].has_unit_maps(model, device)

        def keep(batch: FramedBatch) -> None:
            if any(truth.found for truth in truths) or not truths:
                maps = [np.zeros((side,) * 2) if each is None else each for each in batch.framed]
                boxes.append(CutBoxes.of_maps(batch.rows, side, maps))
            if any(truth.masks for truth in truths):
                raw = [np.zeros((side,) * 2) if each is None else each for each in batch.raw]
                masks.append(KeptMaps.of_maps(batch.rows, side, raw, unit=unit))

        watches = {"val": keep} if settings.outcomes else {}
        numbers = dict(zip(("val", "test"), settings.thresholds, strict=True))
        scores = {
            kind: each.run(model, device, thresholds=numbers[kind], more=("otsu",), watch=watches.get(kind))
            for kind, each in self.evaluators.items()
        }
        if boxes:
            CutBoxes.joined(boxes).write(settings.out / OUTCOMES / f"{epoch:04d}.npz")
        if masks:
            KeptMaps.joined(masks).write(settings.out / OUTCOMES / f"{epoch:04d}{SUFFIX}")
        self.latest = scores["val"]
        entries, test = (self._entries(kind, scores.get(kind, {})) for kind in ("val", "test"))
        if "gt" in test:
            test["otsu"] = test["gt"].pop("otsu")
        parameters = self.recipe.model_dump(mode="json")
        with writing(settings.out / "runs"):
            run = Run(settings.out.name, epoch, entries, test, parameters, settings.labelling.dataset)
            write_run(settings.out / "runs", run)
        lines = []
        for name in self.annotators:
            if name == CLS:
                height, line = [float(entries["accuracy"]), float(epoch)], {"accuracy": entries["accuracy"]}
            else:
                height, line = self._judge(scores["val"][name], entries[name], epoch)
            chosen = {"epoch": epoch, "tau": line.get("tau"), "score": height[0], "annotator": name}
            lines.append({"annotator": name, "epoch": epoch, **line})
            at = "" if chosen["tau"] is None else f" at tau {chosen['tau']:.3f}"
            _log.info("epoch %d: %s %.2f against %s%s", epoch, next(iter(line)), height[0], name, at)
            if height > self.ranks.get(name, [-1.0]):
                self.ranks[name] = height
                state = {**chosen, "recipe": parameters, "classes": len(self.class_names)}
                state["class_names"] = self.class_names
                checkpoint.save(self._weights(name), model, state, {}, artifacts=self.artifacts)
        return lines

    def _entries(self, kind: str, scores: Mapping[str, MapScores]) -> dict[str, Any]:
        """Figures of a split by annotator, and the accuracy of a method that classifies."""
        if not scores:
            return {}
        evaluator = self.evaluators[kind]
        entries: dict[str, Any] = {
            name: each.entry(evaluator.metric_of(each)) for name, each in scores.items() if name != CLS
        }
        accuracy = next(iter(scores.values())).result()["accuracy_top1"]
        if accuracy is not None:
            entries["accuracy"] = accuracy
        return entries

    def _judge(self, scores: MapScores, entry: Mapping[str, Any], epoch: int) -> tuple[list[float], dict[str, Any]]:
        """Return the figures by which epochs are compared, and the line that is logged."""
        metric = self.evaluators["val"].metric_of(scores)
        found = scores.result()
        height = [float(value) for value in rank(entry, metric, epoch)]
        if metric in ("MaxBoxAcc", "PxAP"):
            height[0] = float(found[metric])
        iou = found["pixel_iou" if metric == "PxAP" else "iou"]
        return height, {metric: height[0], "iou": iou, "tau": scores.choose_tau(metric)}
