"""Epochs scored on validation: their figures for ``select``, and the weights that each annotator likes best."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import DataError
from wsolpipe.contract.writing import writing
from wsolpipe.metrics.protocol import Run, rank, write_run
from wsolpipe.networks.saved_state import previous
from wsoltrain.training import checkpoint
from wsoltrain.training.evaluation import Evaluator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from wsoltrain.methods.base import Method
    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.settings import Settings

_log = logging.getLogger(__name__)


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
        Best score so far by each annotator: MaxBoxAcc, or PxAP of masks.
    ranks : dict of str to list of float
        That score and what breaks ties (`wsolpipe.metrics.protocol.rank`).

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
        self.evaluators = {
            kind: Evaluator(recipe, replace(settings.labelling, split=split), settings.root, names, settings.workers)
            for kind, (split, names) in splits.items()
        }
        self.ranks: dict[str, list[float]] = {}

    @property
    def best(self) -> dict[str, float]:
        """Best score so far by each annotator."""
        return {name: height[0] for name, height in self.ranks.items()}

    def _weights(self, annotator: str) -> Path:
        """File of the best weights by an annotator."""
        return self.settings.out / f"best-{annotator}.safetensors"

    def restore(self, best: Mapping[str, float], ranks: Mapping[str, list[float]] | None) -> None:
        """Take up the best scores of a run that continues, and what breaks ties, which older checkpoints lack.

        Raises
        ------
        DataError
            If the weights with one of these scores are damaged or gone: no later epoch brings them back.
        """
        for name, score in best.items():
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
        scores = {
            kind: each.run(model, device, thresholds=settings.thresholds) for kind, each in self.evaluators.items()
        }
        sums = scores["val"]
        test = {name: each.entry() for name, each in scores.get("test", {}).items()}
        entries: dict[str, Any] = {name: each.entry() for name, each in sums.items()}
        accuracy = next(iter(sums.values())).result()["accuracy_top1"]
        if accuracy is not None:
            entries["accuracy"] = accuracy
        parameters = self.recipe.model_dump(mode="json")
        with writing(settings.out / "runs"):
            write_run(settings.out / "runs", Run(settings.out.name, epoch, entries, test, parameters))
        lines = []
        for name, each in sums.items():
            metric, found = each.metric, each.result()
            score = float(found[metric])
            chosen = {"epoch": epoch, "tau": each.choose_tau(), "score": score, "annotator": name}
            iou = found["iou" if metric == "MaxBoxAcc" else "pixel_iou"]
            lines.append({"annotator": name, "epoch": epoch, metric: score, "iou": iou, "tau": chosen["tau"]})
            _log.info("epoch %d: %s %.2f against %s at tau %.3f", epoch, metric, score, name, chosen["tau"])
            height = [score, *(float(value) for value in rank(entries[name], metric, epoch)[1:])]
            if height > self.ranks.get(name, [-1.0]):
                self.ranks[name] = height
                state = {**chosen, "recipe": parameters, "classes": len(self.class_names)}
                state["class_names"] = self.class_names
                checkpoint.save(self._weights(name), model, state, {}, artifacts=self.artifacts)
        return lines
