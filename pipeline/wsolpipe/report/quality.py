"""Boxes beside ground truth, row by row: the arrays from which every figure and chart of a report is taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.schema import Status
from wsolpipe.report.evaluation import otsu_box, truth_boxes

if TYPE_CHECKING:
    from wsolpipe.contract.reader import Index, StageView

Array = np.ndarray[Any, Any]

#: Above this many rows with ground truth the boxes of the maps alone are left out: they cost a millisecond a row.
OTSU_ROWS = 5000
BEST_OF = 5


@dataclass(frozen=True)
class Quality:
    """One value a row; NaN where a row has none.

    Attributes
    ----------
    status : uint8 [N]
        `Status` of the shown stage; quarantined rows of the index are marked where no stage was made.
    labels : int64 [N]
        First label, −1 where there is none.
    sizes : float64 [N, 2]
        (width, height) of the images.
    truth_rows, truth : int64 [A], float64 [A, 4]
        Ground-truth boxes and their rows, sorted by row.
    scored : bool [N]
        Rows that count: finished, with ground truth, of a class that has an object.
    ious : dict of str to float64 [N]
        Best IoU with any ground-truth box, of: ``top1``, ``best5``, ``candidates`` (mean over the row's boxes),
        ``otsu`` (largest Otsu region of the first map), ``centre`` (box of 0.8 of each side).
    share : float64 [N]
        Area of the largest ground-truth box over the area of the image.
    source : int64 [N]
        Map that the first box came from, −1 where there is none.
    score : float64 [N]
        Score of the first box.
    """

    status: Array
    labels: Array
    sizes: Array
    truth_rows: Array
    truth: Array
    scored: Array
    share: Array
    source: Array
    score: Array
    ious: dict[str, Array] = field(default_factory=dict)

    @property
    def shown(self) -> Array:
        """Rows worth showing, bool [N]: those with a result."""
        return np.asarray((self.status == Status.OK) | (self.status == Status.NO_OBJECT))

    @property
    def ranking(self) -> Array:
        """What the gallery is ordered by, float64 [N]: IoU of the first box, else of its map, else the score."""
        for name in ("top1", "otsu"):
            if name in self.ious and self.scored.any():
                return self.ious[name]
        return self.score

    def means(self) -> dict[str, float]:
        """Mean over the rows that count, by name."""
        return (
            {name: float(values[self.scored].mean()) for name, values in self.ious.items()} if self.scored.any() else {}
        )

    def recall(self, name: str, level: float = 0.5) -> float:
        """Share of the rows that count whose IoU reaches `level`."""
        return float((self.ious[name][self.scored] >= level).mean())

    def truth_of(self, row: int) -> Array:
        """Ground-truth boxes of a row, float64 [M, 4]."""
        first, last = np.searchsorted(self.truth_rows, [row, row + 1])
        found: Array = self.truth[first:last]
        return found


def measure(index: Index, boxes: StageView | None, maps: StageView | None) -> Quality:
    """Hold the boxes of a stage (or else what its maps give) against the ground truth of its index."""
    table = index.table(["labels", "width", "height", "reason"])
    rows = table.num_rows
    labels = np.array([values[0] if values else -1 for values in table.column("labels").to_pylist()], np.int64)
    sizes = np.stack([table.column(name).to_numpy().astype(np.float64) for name in ("width", "height")], axis=1)
    truth_rows, truth = truth_boxes(index)
    view = boxes or maps
    if view is None:
        reasons = table.column("reason").to_pylist()
        status = np.array([Status.QUARANTINED if reason else Status.OK for reason in reasons], np.uint8)
    else:
        status = _fit(view.status(), rows, Status.ABSENT)
    objectless = np.isin(labels, np.array(index.manifest.objectless, np.int64))
    has_truth = np.isin(np.arange(rows), truth_rows)
    share = np.full(rows, np.nan)
    areas = (truth[:, 2] - truth[:, 0]) * (truth[:, 3] - truth[:, 1]) / sizes[truth_rows].prod(1).clip(1)
    np.fmax.at(share, truth_rows, areas)
    source, score = np.full(rows, -1, np.int64), np.full(rows, np.nan)
    if boxes is not None and "source" in boxes.manifest.arrays:
        source = _fit(boxes["source"][:][:, 0].astype(np.int64), rows, -1)
    if boxes is not None and "scores" in boxes.manifest.arrays:
        score = _fit(boxes["scores"][:][:, 0].astype(np.float64), rows, np.nan)
    scored = has_truth & ~objectless & (status == Status.OK)
    found = Quality(status, labels, sizes, truth_rows, truth, scored, share, source, score)
    if scored.any():
        found.ious.update(_ious(found, boxes, maps))
    return found


def best_overlaps(boxes: Array, truth_rows: Array, truth: Array) -> Array:
    """Best IoU of every box with any ground-truth box of its row.

    Parameters
    ----------
    boxes : float [N, K, 4]
        NaN where there is none. Half-open xyxy, as `truth` float [A, 4]; `truth_rows` int [A] says whose they are.

    Returns
    -------
    float64 [N, K]
        NaN at missing boxes and in rows without ground truth.
    """
    best = np.full(boxes.shape[:2], np.nan)
    mine, other = boxes[truth_rows].astype(np.float64), truth[:, None]
    sides = np.minimum(mine[..., 2:], other[..., 2:]) - np.maximum(mine[..., :2], other[..., :2])
    overlap = sides.clip(0).prod(-1)
    union = (mine[..., 2:] - mine[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1) - overlap
    np.fmax.at(best, truth_rows, overlap / np.where(union > 0, union, 1))
    return best


def _ious(quality: Quality, boxes: StageView | None, maps: StageView | None) -> dict[str, Array]:
    rows, found = len(quality.status), {}
    if boxes is not None:
        best = best_overlaps(_fit(boxes["boxes"][:], rows, np.nan), quality.truth_rows, quality.truth)
        present = ~np.isnan(best)
        whole = np.where(present, best, 0.0)
        found["top1"] = whole[:, 0]
        found["best5"] = whole[:, :BEST_OF].max(1)
        found["candidates"] = whole.sum(1) / present.sum(1).clip(1)
    if maps is not None and quality.scored.sum() <= OTSU_ROWS:
        found["otsu"] = _otsu(quality, maps)
    margin = 0.1 * quality.sizes
    centre = np.concatenate([margin, quality.sizes - margin], axis=1)
    found["centre"] = best_overlaps(centre[:, None], quality.truth_rows, quality.truth)[:, 0]
    return {name: np.where(quality.scored, values, np.nan) for name, values in found.items()}


def _otsu(quality: Quality, maps: StageView) -> Array:

    boxes = np.full((len(quality.status), 1, 4), np.nan)
    wanted = np.flatnonzero(quality.scored & (_fit(maps.status(), len(quality.status), 0) == Status.OK))
    if len(wanted):
        for row, levels in zip(wanted, maps["maps"][wanted], strict=True):
            width, height = (int(side) for side in quality.sizes[row])
            boxes[row, :1] = otsu_box(levels[0], width, height)[:1]
    return np.nan_to_num(best_overlaps(boxes, quality.truth_rows, quality.truth)[:, 0])


def _fit(values: Array, rows: int, fill: float) -> Array:
    """`values` cut or filled to `rows` rows: the index may have grown since the stage was made."""
    if len(values) >= rows:
        return values[:rows]
    return np.concatenate([values, np.full((rows - len(values), *values.shape[1:]), fill, values.dtype)])
