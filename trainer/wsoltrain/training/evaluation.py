"""Scoring a method's maps on a split: feeds them to `wsolpipe.evaluate`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from wsolpipe.contract.errors import ConfigError
from wsolpipe.evaluate.frame import Frame
from wsolpipe.evaluate.map_scores import score_against
from wsolpipe.evaluate.map_sources import TOP, MapBatch
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.rows import rows_of_index
from wsolpipe.evaluate.truth import Truth
from wsoltrain.data.config import ItemConfig
from wsoltrain.data.stream import Stream
from wsoltrain.methods.base import checked
from wsoltrain.training.annotators import CLS, read_annotators

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from wsolpipe.evaluate.frame import FramedBatch
    from wsolpipe.evaluate.map_scores import MapScores
    from wsolpipe.metrics.protocol import Metric
    from wsoltrain.data.config import Labelling
    from wsoltrain.methods.base import Method
    from wsoltrain.training.recipe import Recipe


class NetworkMaps:
    """Maps of a method, of each row's label, as a source of the evaluator.

    See `wsolpipe.evaluate.map_sources.MapSource`. `name` is the method's, for messages; maps of `rows` are kept in
    `seen`.
    """

    labels = "true"

    def __init__(
        self, model: Method[Any], stream: Stream, device: torch.device, name: str, rows: Iterable[int] = ()
    ) -> None:
        self.model, self.stream, self.device, self.name, self.quarantined = model, stream, device, name, 0
        self.rows, self.seen = frozenset(rows), dict[int, np.ndarray[Any, Any]]()

    @torch.no_grad()
    def has_unit_maps(self) -> bool:
        """Whether the method's maps are in 0..1 as they are; learned from one blank image."""
        size = self.stream.config.size
        return self.model.eval().predict(torch.zeros(1, 3, size, size, device=self.device)).unit

    def frame(self) -> Frame:
        """Return the frame of the method's maps: without min-max where they are in 0..1, as in the papers."""
        return Frame(side=self.model.frame_side, normalise=not self.has_unit_maps())

    def batches(self) -> Iterator[MapBatch]:
        """Score maps and, of a method that classifies, its first five classes."""
        self.model.eval()
        self.stream.set_epoch(0)
        for batch in self.stream:
            with torch.no_grad():
                found = self.model.predict(batch["image"].to(self.device), batch["label"].to(self.device))
            checked(found, len(batch["row"]), self.name, rows=batch["row"].tolist())
            top = None
            if found.scores is not None:
                self._check_classes(found.scores.shape[1])
                top = found.scores.float().topk(min(TOP, found.scores.shape[1])).indices.cpu().numpy()
            maps = list(found.maps.float().cpu().numpy())
            self.seen |= {row: raw for row, raw in zip(batch["row"].tolist(), maps, strict=True) if row in self.rows}
            yield MapBatch(np.asarray(batch["row"], np.int64), maps, top)
        self.quarantined = self.stream.counts["quarantined"] + self.stream.counts["broken"]

    def _check_classes(self, outputs: int) -> None:
        """Refuse a network of other classes than the data set's."""
        rows = self.stream.items.rows
        if rows.classes is not None and rows.classes != outputs:
            where = rows.labelling.dataset
            msg = f"the network knows {outputs} classes, and {where} has {rows.classes}"
            raise ConfigError(msg, hint=f"a network that was trained on {where}")


class Evaluator:
    """Evaluates a method on one split, epoch after epoch.

    Parameters
    ----------
    recipe : Recipe
        Size and normalisation.
    labelling : Labelling
        Store, data set and split; of its stages only that of the images is read.
    root : str
        Folder of the image files.
    annotators : sequence of str
        What to score against: words of `wsoltrain.training.annotators`.
    workers : int
        Loader processes.
    masks : Path, optional
        Folder of the ground truth's mask files.
    metric : str
        Figure that the truth must allow; ``auto`` for whichever it does.
    per_class : int, optional
        Rows of each class that are evaluated, the first ones; default all.

    Attributes
    ----------
    truths : dict of str to Truth
        By name of the annotator; ``cls`` has none.
    choosing : list of str
        Names of all annotators, in their order.

    Raises
    ------
    StoreError
        If a stage is missing; names the command that makes it.
    ConfigError
        If an annotator has neither a box nor a mask of any row, or not what the metric is of.
    """

    def __init__(
        self,
        recipe: Recipe,
        labelling: Labelling,
        root: str,
        annotators: list[str],
        workers: int,
        masks: Path | None = None,
        metric: str = "auto",
        per_class: int | None = None,
    ) -> None:
        plain = replace(labelling, maps=None, boxes=None, where=None, drawn=None)
        config = ItemConfig(
            plain, root=root, size=recipe.size, mean=recipe.mean, std=recipe.std, train=False, need_label=False,
            rows_per_class=per_class,
        )  # fmt: skip
        self.stream = Stream(config, batch_size=recipe.batch, workers=workers)
        results = StoreResults(plain.store, plain.dataset, masks)
        rows = rows_of_index(self.stream.items.rows.index)
        self.method = recipe.method
        self.metric = metric
        known = read_annotators(annotators)
        self.choosing = [each.name for each in known]
        self.truths = {each.name: each.find(results, rows) for each in known if each.name != CLS}
        for name, truth in self.truths.items():
            self._check(name, truth)
        self._judged = self.truths or {CLS: Truth("class names", rows)}

    def _check(self, name: str, truth: Truth) -> None:
        where = f"split {truth.rows.split} of {self.stream.config.labelling.dataset}"
        if not truth.found and not truth.masks:
            msg = f"{where} has no {name} box or mask to be scored against"
            raise ConfigError(msg, hint="by=STAGE scores against pseudo-boxes, by=cls by the accuracy of the classes")
        kind = {"auto": "box or mask", "PxAP": "mask"}.get(self.metric, "box")
        if (kind == "mask" and not truth.masks) or (kind == "box" and not truth.found):
            other = "boxes" if kind == "mask" else "masks"
            msg = f"metric={self.metric}: {truth.name} ({name}) of {where} holds {other} and no {kind}"
            raise ConfigError(msg, hint="metric=auto scores each annotator by what it holds")

    def has_unit_maps(self, model: Method[Any], device: torch.device) -> bool:
        """Whether a method's maps are in 0..1 as they are."""
        return NetworkMaps(model, self.stream, device, self.method).has_unit_maps()

    def metric_of(self, scores: MapScores) -> Metric:
        """The metric asked for, or the one that suits the truth."""
        return scores.metric if self.metric == "auto" else cast("Metric", self.metric)

    def run(
        self,
        model: Method[Any],
        device: torch.device,
        *,
        thresholds: int,
        more: Collection[str] = (),
        watch: Callable[[FramedBatch], None] | None = None,
    ) -> dict[str, MapScores]:
        """Score maps against each annotator in one pass.

        Parameters
        ----------
        thresholds : int
            Of boxes.
        more : collection of str
            Further figures (`wsolpipe.evaluate.figures.FIGURES`).
        watch : callable, optional
            Called once with each batch of maps in the frame.

        Returns
        -------
        dict of str to MapScores
            By annotator; only that of ``cls`` where there is no other, with the accuracy and no localization.
        """
        source = NetworkMaps(model, self.stream, device, self.method)
        return score_against(
            source, self._judged, source.frame(), thresholds=thresholds, details=False, more=more, watch=watch
        )
