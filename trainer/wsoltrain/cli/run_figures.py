"""Figures of trained localizers and of networks for the tables of the papers; those that are slow are kept."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from wsolpipe.evaluate.tau import BEST, OTSU, Threshold
from wsoltrain.cli import fit
from wsoltrain.cli.command import read_recipe_words
from wsoltrain.selection.scoring import build_bare

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.settings import Settings

WARM, TIMES = 3, {"cuda": 1000, "cpu": 20}
"""Images before the clock runs, and those that are timed."""


def score_training(settings: Settings, weights: str, split: str, *, own_threshold: bool) -> dict[str, Any]:
    """Score a run's chosen weights on a split, all metrics with intervals; read from a file if done before.

    Parameters
    ----------
    settings : Settings
        Of the run.
    weights : str
        Name of a file in its folder.
    own_threshold : bool
        Whether figures take the threshold that was chosen with the weights, or the best one of these images.

    Returns
    -------
    dict
        ``figures``, ``intervals``, ``rows``, ``threshold``.
    """
    path = settings.out / weights
    named = f"{path.stem}-{split}-{'own' if own_threshold else 'best'}.figures"
    kept, digest = settings.out / named, sha256(path.read_bytes()).hexdigest()
    if kept.exists():
        before: dict[str, Any] = json.loads(kept.read_text())
        if before.pop("weights") == digest and "threshold" in before:
            return {**before, "threshold": Threshold(**before["threshold"])}
    found = _score(settings, path, split, own_threshold=own_threshold)
    kept.write_text(json.dumps({**found, "threshold": asdict(found["threshold"]), "weights": digest}) + "\n")
    return found


def _score(settings: Settings, path: Path, split: str, *, own_threshold: bool) -> dict[str, Any]:
    import torch

    from wsolpipe.evaluate.bootstrap import box_values, intervals_of, map_values
    from wsoltrain.inference.model import load_trained
    from wsoltrain.selection.comparison import score_method
    from wsoltrain.training.evaluation import Evaluator

    device = torch.device(settings.device)
    trained = load_trained(str(path), device=device)
    labelling = replace(settings.labelling, split=split)
    evaluator = Evaluator(trained.recipe, labelling, settings.root, ["gt"], settings.workers, settings.masks)
    tau = trained.tau if own_threshold else None
    by = trained.annotator if own_threshold else ""
    found = score_method(path.stem, trained.model, tau, evaluator, device, by=by, details=True)
    scores, rows = found.scores, found.scores.boxes.rows_scored
    if found.own is not None:  # accuracy chose: there is no threshold but each map's own
        own = {key: value for key, value in scores.result(0.0).items() if key in ("accuracy_top1", "CL", "PxAP")}
        figures = {**own, **found.own.as_maps()}
        return {"figures": figures, "intervals": intervals_of(box_values(found.own)), "rows": rows, "threshold": OTSU}
    threshold = BEST if tau is None else Threshold(tau, f"{by} of {settings.val}")
    intervals = intervals_of(map_values(scores, tau))
    return {"figures": scores.result(tau), "intervals": intervals, "rows": rows, "threshold": threshold}


def measure_network(recipe: Recipe, classes: int, device_name: str) -> dict[str, Any]:
    """Parameters of a recipe's network and milliseconds an image, alone in a batch; no weights are read.

    Raises
    ------
    WsolError
        If the network cannot be built without a store.
    """
    import torch

    from wsoltrain.inference.complexity import complexity

    device, model = torch.device(device_name), build_bare(recipe, classes, device_name)
    image = torch.zeros(1, 3, recipe.size, recipe.size, device=device)
    seconds = []
    with torch.no_grad():
        for _ in range(WARM + TIMES[device.type]):
            began = time.perf_counter()
            model.predict(image)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    middle = sorted(seconds[WARM:])[len(seconds[WARM:]) // 2]
    counts = complexity(model, recipe.size)["total"]
    return {"figures": {"parameters": counts["parameters"], "milliseconds": 1e3 * middle}}


class FitCommand:
    """``wsoltrain fit`` and what scores its runs; see `wsoltrain.selection.reproduction.Trains`."""

    def settle(self, words: Sequence[str]) -> Settings:
        """Check the words of a training and return its places."""
        return fit.prepare(*read_recipe_words(words, fit.KEYS))[1]

    def train(self, words: Sequence[str]) -> None:
        """Carry it out in this process."""
        fit.train(words)

    def score(self, settings: Settings, weights: str, split: str, *, own_threshold: bool) -> dict[str, Any]:
        """Score a run's chosen weights."""
        return score_training(settings, weights, split, own_threshold=own_threshold)

    def measure(self, recipe: Recipe, classes: int, device: str) -> dict[str, Any]:
        """Count parameters and time an image."""
        return measure_network(recipe, classes, device)
