"""Scoring a network's maps on a split: feeds them to `wsolpipe.evaluate`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from wsolpipe.contract.errors import ConfigError
from wsolpipe.evaluate.frame import Frame
from wsolpipe.evaluate.map_scores import score_against
from wsolpipe.evaluate.map_sources import TOP, MapBatch
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.rows import rows_of_index
from wsolpipe.evaluate.truth import find_truth
from wsoltrain.data.config import ItemConfig
from wsoltrain.data.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wsolpipe.evaluate.map_scores import MapScores
    from wsoltrain.data.config import Labelling
    from wsoltrain.methods.localizers import Localizer
    from wsoltrain.training.recipe import Recipe


class NetworkMaps:
    """Maps of a network as a source of the evaluator; see `wsolpipe.evaluate.map_sources.MapSource`."""

    labels = "true"

    def __init__(self, model: Localizer, stream: Stream, device: torch.device) -> None:
        self.model, self.stream, self.device, self.quarantined = model, stream, device, 0

    def batches(self) -> Iterator[MapBatch]:
        """Foreground probabilities and, of a network that classifies, its first five classes."""
        self.model.eval()
        self.stream.set_epoch(0)
        for batch in self.stream:
            with torch.no_grad():
                prediction = self.model(batch["image"].to(self.device))
            maps = prediction.logits.float().softmax(1)[:, 1].cpu().numpy()
            top = None
            if prediction.classes is not None:
                self._check_classes(prediction.classes.shape[1])
                order = prediction.classes.float().topk(min(TOP, prediction.classes.shape[1]))
                top = order.indices.cpu().numpy()
            yield MapBatch(np.asarray(batch["row"], np.int64), list(maps), top)
        self.quarantined = self.stream.counts["quarantined"] + self.stream.counts["broken"]

    def _check_classes(self, outputs: int) -> None:
        """Refuse a network of other classes than the data set's."""
        rows = self.stream.items.rows
        if rows.classes is not None and rows.classes != outputs:
            where = rows.labelling.dataset
            msg = f"the network knows {outputs} classes, and {where} has {rows.classes}"
            raise ConfigError(msg, hint=f"a network that was trained on {where}")


class Evaluator:
    """Evaluates a network on one split, epoch after epoch.

    Parameters
    ----------
    recipe : Recipe
        Size and normalisation.
    labelling : Labelling
        Store, data set and split; of its stages only that of the images is read.
    root : str
        Folder of the image files.
    annotators : sequence of str
        What to score against: ``gt`` or any word of `wsolpipe.evaluate.truth.find_truth`.
    workers : int
        Loader processes.
    masks : Path, optional
        Folder of the ground truth's mask files.

    Attributes
    ----------
    truths : dict of str to Truth
        By annotator.

    Raises
    ------
    StoreError
        If a stage is missing; names the command that makes it.
    ConfigError
        If an annotator has neither a box nor a mask of any row.
    """

    def __init__(
        self,
        recipe: Recipe,
        labelling: Labelling,
        root: str,
        annotators: list[str],
        workers: int,
        masks: Path | None = None,
    ) -> None:
        plain = replace(labelling, maps=None, boxes=None)
        config = ItemConfig(
            plain, root=root, size=recipe.size, mean=recipe.mean, std=recipe.std, train=False, need_label=False
        )
        self.stream = Stream(config, batch_size=recipe.batch, workers=workers)
        results = StoreResults(plain.store, plain.dataset, masks)
        rows = rows_of_index(self.stream.items.rows.index)
        self.truths = {name: find_truth(results, rows, name) for name in annotators}
        for name, truth in self.truths.items():
            if not truth.found and not truth.masks:
                msg = f"split {plain.split} of {plain.dataset} has no {name} box or mask to be scored against"
                raise ConfigError(msg)

    def run(self, model: Localizer, device: torch.device, *, thresholds: int) -> dict[str, MapScores]:
        """Score the network's maps, without min-max as in the papers, against each annotator in one pass."""
        source = NetworkMaps(model, self.stream, device)
        return score_against(source, self.truths, Frame(normalise=False), thresholds=thresholds, details=False)
