"""Score a localizer's maps on a split against boxes: pseudo-boxes of a stage, or the ground truth where asked."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wsolpipe.contract.errors import ConfigError, StoreError
from wsolpipe.contract.reader import open_store
from wsolpipe.metrics import MaxBoxEvaluation, standard_boxes, standard_maps
from wsoltrain.data.config import ItemConfig
from wsoltrain.data.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from wsoltrain.data.config import Labelling
    from wsoltrain.methods.localizers import Localizer
    from wsoltrain.training.recipe import Recipe

    Boxes = dict[int, NDArray[np.float64]]


def boxes_of(labelling: Labelling, annotator: str) -> Boxes:
    """Boxes of each row of a split, [M, 4] in pixels of the image.

    Parameters
    ----------
    labelling : Labelling
        Store, data set and split.
    annotator : str
        ``"gt"`` for the ground truth, else a stage whose first box of a row counts.

    Raises
    ------
    StoreError
        If the stage is missing; names the command that makes it.
    ConfigError
        If there is no box at all.
    """
    split = open_store(labelling.store)[labelling.dataset][labelling.split]
    found: Boxes = {}
    if annotator == "gt":
        table = split.index().annotations()
        if "kind" in table.column_names:
            table = table.filter(np.array([kind == "box" for kind in table.column("kind").to_pylist()], bool))
        lists: dict[int, list[list[float]]] = defaultdict(list)
        for row in table.select(["row", "x0", "y0", "x1", "y1"]).to_pylist():
            lists[row["row"]].append([row[edge] for edge in ("x0", "y0", "x1", "y1")])
        found = {row: np.array(boxes, np.float64) for row, boxes in lists.items()}
    else:
        try:
            stored = split.stage(annotator)["boxes"]
        except StoreError as error:
            raise StoreError(error.message, hint=labelling.command(annotator)) from error
        first = np.asarray(stored[:], np.float64).reshape(stored.shape[0], -1, 4)[:, 0]
        found = {row: box[None] for row, box in enumerate(first) if np.isfinite(box).all()}
    if not found:
        msg = f"split {labelling.split} of {labelling.dataset} has no {annotator} box to be scored against"
        raise ConfigError(msg)
    return found


class Evaluator:
    """Evaluates a localizer on one split, epoch after epoch.

    Parameters
    ----------
    recipe : Recipe
        Size and normalisation.
    labelling : Labelling
        Store, data set and split; of its stages only that of the images is read.
    root : str
        Folder of the image files.
    annotators : sequence of str
        Whose boxes to score against, as in `boxes_of`.
    workers : int
        Loader processes.
    """

    def __init__(self, recipe: Recipe, labelling: Labelling, root: str, annotators: list[str], workers: int) -> None:
        plain = replace(labelling, maps=None, boxes=None)
        config = ItemConfig(
            plain, root=root, size=recipe.size, mean=recipe.mean, std=recipe.std, train=False, need_label=False
        )
        self.stream = Stream(config, batch_size=recipe.batch, workers=workers)
        self.boxes = {name: boxes_of(plain, name) for name in annotators}

    def run(self, model: Localizer, device: torch.device, *, thresholds: int) -> Mapping[str, MaxBoxEvaluation]:
        """Score the foreground map, without min-max as in the papers, against each annotator."""
        sums = {name: MaxBoxEvaluation(thresholds=thresholds, labels="predicted") for name in self.boxes}
        sizes, labels = self.stream.items.rows.sizes, self.stream.items.rows.labels
        model.eval()
        self.stream.set_epoch(0)
        for batch in self.stream:
            with torch.no_grad():
                prediction = model(batch["image"].to(device))
            maps = standard_maps(prediction.logits.float().softmax(1)[:, 1].cpu().numpy(), normalise=False)
            rows = batch["row"].tolist()
            top: dict[str, Any] = {}
            if prediction.classes is not None:
                self._check_classes(prediction.classes.shape[1])
                order = prediction.classes.float().topk(min(5, prediction.classes.shape[1])).indices.cpu().numpy()
                top = {"truth": labels[rows], "predicted": order}
            for name, boxes in self.boxes.items():
                scaled = [
                    standard_boxes(boxes[row], tuple(sizes[row])) if row in boxes else np.zeros((0, 4)) for row in rows
                ]
                sums[name].add(list(maps), scaled, **top)
        return sums

    def _check_classes(self, outputs: int) -> None:
        """Refuse a network of other classes than the data set's."""
        rows = self.stream.items.rows
        if rows.classes is not None and rows.classes != outputs:
            where = rows.labelling.dataset
            msg = f"the network knows {outputs} classes, and {where} has {rows.classes}"
            raise ConfigError(msg, hint=f"a network that was trained on {where}")
