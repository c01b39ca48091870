"""Rows that a person should look at first: where stages disagree, are unsure, or move the chosen threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.schema import Status
from wsolpipe.evaluate.evaluation import Options
from wsolpipe.evaluate.map_scores import KeptIous
from wsolpipe.evaluate.map_sources import RowTable, StageMaps
from wsolpipe.evaluate.otsu_scores import otsu_box
from wsolpipe.evaluate.scored import score
from wsolpipe.metrics.boxes import iou_matrix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.truth import Truth

Array = np.ndarray[Any, Any]
#: IoU from which a box counts, as MaxBoxAcc has it.
HIT = 0.5


def doubtful_rows(views: Iterable[StageView], rows: RowTable, truth: Truth | None = None) -> Array:
    """Rows in the order in which they are worth correcting, int64 [n].

    A row's doubt is the mean of its ranks, 0 to 1, by each of the figures of `doubts` that some row has. Ground truth
    is not read, unless `truth` is it.

    Parameters
    ----------
    views : iterable of StageView
        Stages of boxes and of maps of one split, made of the same rows; the first decides which rows take part.
    rows : RowTable
    truth : Truth, optional
        Pseudo-boxes by which a threshold is chosen.
    """
    views = list(views)
    found = doubts(views, rows, truth)
    ranks = [_ranks(values) for values in found.values() if np.isfinite(values).any()]
    usable = np.flatnonzero(views[0].status()[: len(rows)] == Status.OK)
    total = np.mean(ranks, axis=0)[usable] if ranks else np.zeros(len(usable))
    return np.asarray(usable[np.argsort(-total, kind="stable")])


def doubts(views: Iterable[StageView], rows: RowTable, truth: Truth | None = None) -> dict[str, Array]:
    """Figures of doubt of each row, float64 [N], larger where a look is worth more; NaN where a row has none.

    Returns
    -------
    dict of str to array
        ``disagreement``: 1 less the mean IoU of each pair of the first boxes of stages and the Otsu boxes of their
        first maps. ``uncertainty``: 1 less the score of the first box, mean over stages whose scores lie in 0..1.
        ``influence``: how far the best threshold of the first stage of maps moves without the row, or 0 where it
        stays, and beside that how sharply the row's own box turns from right to wrong around it.
    """
    views = list(views)
    opinions: list[list[Array]] = [[] for _ in range(len(rows))]
    scores: list[Array] = []
    for view in views:
        arrays = view.manifest.arrays
        if "boxes" in arrays:
            scores += [own] if (own := _read_boxes(view, opinions)) is not None else []
        if "maps" in arrays:
            for batch in StageMaps(view, 0, rows).batches():
                for row, values in zip(batch.rows.tolist(), batch.maps, strict=True):
                    if values is not None and np.isfinite(values).all():
                        opinions[row] += list(otsu_box(values, *(int(side) for side in rows.sizes[row])))
    found = {"disagreement": np.array([_disagreement(own) for own in opinions])}
    if scores:
        known = np.array(scores)
        count = np.isfinite(known).sum(0)
        found["uncertainty"] = np.where(count, 1 - np.nansum(known, axis=0) / np.maximum(count, 1), np.nan)
    maps = next((view for view in views if "maps" in view.manifest.arrays), None)
    if truth is not None and maps is not None:
        found["influence"] = influence(maps, rows, truth)
    return found


def _read_boxes(view: StageView, opinions: list[list[Array]]) -> Array | None:
    """Add the first box of each row; return the first scores, where they all lie in 0..1."""
    boxes = view["boxes"].filled().astype(np.float64).reshape(view.manifest.rows, -1, 4)[: len(opinions), 0]
    for row in np.flatnonzero(np.isfinite(boxes).all(axis=1)).tolist():
        opinions[row].append(boxes[row])
    if "scores" not in view.manifest.arrays:
        return None
    scores = np.full(len(opinions), np.nan)
    stored = view["scores"].filled().astype(np.float64).reshape(view.manifest.rows, -1)[: len(opinions), 0]
    scores[: len(stored)] = stored
    inside = scores[np.isfinite(scores)]
    return scores if len(inside) and inside.min() >= 0 and inside.max() <= 1 else None


def _disagreement(boxes: list[Array]) -> float:
    """1 less the mean IoU of each pair; NaN of fewer than two boxes."""
    if len(boxes) < 2:
        return np.nan
    pairs = np.triu_indices(len(boxes), 1)
    return 1 - float(iou_matrix(np.array(boxes), np.array(boxes))[pairs].mean())


def influence(view: StageView, rows: RowTable, truth: Truth) -> Array:
    """How much each row sways the threshold that suits `truth` best, float64 [N]; NaN where it has no box there.

    The sum of two shares of all thresholds: how far the best one moves when the row is left out, and how many of those
    within 0.1 of it give the row another verdict than the best one does.
    """
    options = Options().of_predictions(view.manifest.params)
    maps = StageMaps(view, 0, rows)
    scores = score(maps, truth, frame=options.frame(), keep=KeptIous, details=False).maps
    found = np.full(len(rows), np.nan)
    if scores is None or not isinstance(scores.kept, KeptIous) or not scores.kept.rows:
        return found
    count = scores.boxes.thresholds
    columns = [scores.kept.at(place, count) for place in range(count)]
    hits = np.array([ious >= HIT for _, ious in columns])  # [T, n]
    total = hits.sum(1)
    best = int(total.argmax())
    alone = (total[:, None] - hits).argmax(0)
    near = slice(max(0, best - count // 10), best + count // 10 + 1)
    turns = (hits[near] != hits[best]).mean(0)
    found[columns[0][0]] = np.abs(alone - best) / count + turns
    return found


def _ranks(values: Array) -> Array:
    """Rank of each value from 0 (smallest) to 1; 0.5 where a row has none."""
    ranks, known = np.full(len(values), 0.5), np.flatnonzero(np.isfinite(values))
    order = np.unique(values[known], return_inverse=True)[1]
    ranks[known] = order / max(order.max(), 1)
    return ranks
