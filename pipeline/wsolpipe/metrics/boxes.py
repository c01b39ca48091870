"""Boxes against boxes: IoU, recall, shares at fixed levels, and the figures of threshold-free box sets.

Boxes are float arrays [N, 4] as (x0, y0, x1, y1). Two conventions are known everywhere:

- half-open (default here): a box covers ``[x0, x1) x [y0, y1)``, width ``x1 - x0``; stores and ground truth use it;
- inclusive (``inclusive=True``): both edges are pixels of the box, its width is ``x1 - x0 + 1``; the standard WSOL
  evaluator (Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020) uses it.

A row that holds NaN is padding: it overlaps nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.contract.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

LEVELS = (0.3, 0.5, 0.7)
"""IoU levels of MaxBoxAccV2."""

# Sums of shares are kept as whole multiples of 2**-40, so that they do not depend on the order of addition:
# one worker equals many to the last bit. Eight million rows fit in 64 bits; the error of a mean is below 5e-13.
FIXED_POINT = 1 << 40


def as_boxes(boxes: ArrayLike) -> Floats:
    """Return boxes as float64 [N, 4] without padding rows.

    Parameters
    ----------
    boxes : array_like [N, 4], [4] or empty
        Boxes as (x0, y0, x1, y1); rows with NaN are padding and left out.

    Raises
    ------
    DataError
        If the shape is not [N, 4] or a box has its far edge before its near edge.
    """
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] != 4:
        msg = f"boxes must have the shape [N, 4], not {list(array.shape)}"
        raise DataError(msg)
    array = array[~np.isnan(array).any(axis=1)]
    inverted = np.flatnonzero((array[:, 2] < array[:, 0]) | (array[:, 3] < array[:, 1]))
    if inverted.size:
        first = inverted[0]
        msg = f"box {first} has its far edge before its near edge: {array[first].tolist()} (want x0, y0, x1, y1)"
        raise DataError(msg)
    return array


def box_areas(boxes: ArrayLike, *, inclusive: bool = False) -> Floats:
    """Return the areas [N] of boxes [N, 4] in square pixels."""
    array = as_boxes(boxes)
    sides = array[:, 2:] - array[:, :2] + float(inclusive)
    return np.asarray(sides[:, 0] * sides[:, 1])


def intersections(a: ArrayLike, b: ArrayLike, *, inclusive: bool = False) -> Floats:
    """Return the areas of overlap [N, M] of boxes ``a`` [N, 4] and ``b`` [M, 4] in square pixels."""
    first, second = as_boxes(a)[:, None], as_boxes(b)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    sides = np.maximum(sides + float(inclusive), 0.0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def iou_matrix(a: ArrayLike, b: ArrayLike, *, inclusive: bool = False) -> Floats:
    """Return the intersection over union [N, M] of two box sets.

    Parameters
    ----------
    a, b : array_like [N, 4], [M, 4]
        Boxes as (x0, y0, x1, y1), in one coordinate system. Padding rows (NaN) are left out first.
    inclusive : bool
        Count both edges as pixels of the box (standard WSOL evaluator); default is half-open.

    Returns
    -------
    float64 [N, M]
        In 0..1; 0 where both boxes are empty.

    Raises
    ------
    DataError
        If a shape is not [N, 4] or a box is inverted.
    """
    overlap = intersections(a, b, inclusive=inclusive)
    union = box_areas(a, inclusive=inclusive)[:, None] + box_areas(b, inclusive=inclusive)[None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def iou_per_box(boxes: ArrayLike, truth: ArrayLike, *, inclusive: bool = False) -> Floats:
    """Return, for each of N boxes, its best IoU over the M ground-truth boxes (float64 [N]; 0 where M is 0)."""
    matrix = iou_matrix(boxes, truth, inclusive=inclusive)
    return matrix.max(axis=1) if matrix.shape[1] else np.zeros(len(matrix))


def best_iou(boxes: ArrayLike, truth: ArrayLike, *, inclusive: bool = False) -> float:
    """Return the best IoU over all pairs of a box and a ground-truth box; 0 if either set is empty."""
    return float(iou_per_box(boxes, truth, inclusive=inclusive).max(initial=0.0))


def box_recall(boxes: ArrayLike, truth: ArrayLike, *, iou: float = 0.5, inclusive: bool = False) -> float:
    """Return the share of ground-truth boxes that some box meets with at least ``iou``; NaN without ground truth."""
    matrix = iou_matrix(boxes, truth, inclusive=inclusive)
    if not matrix.shape[1]:
        return float("nan")
    return float((matrix.max(axis=0, initial=0.0) >= iou).mean())


def centred_box(width: float, height: float, *, side: float = 0.8) -> Floats:
    """Return the box [4] in the middle of an image that takes ``side`` of its width and of its height.

    The baseline that every localizer has to beat; half-open, in the pixels of the image.
    """
    margin = (1.0 - side) / 2.0
    return np.array([width * margin, height * margin, width * (1.0 - margin), height * (1.0 - margin)])


def iou_shares(ious: ArrayLike, *, levels: Sequence[float] = LEVELS) -> dict[str, float]:
    """Return the share of rows at or above each IoU level, and their mean: MaxBoxAccV2 of boxes without a threshold.

    Parameters
    ----------
    ious : array_like [N]
        IoU of each row's box with its ground truth.
    levels : sequence of float
        IoU levels; the keys of the answer are whole per cents (``"30"``, ``"50"``, ``"70"``).

    Returns
    -------
    dict
        Fractions 0..1 under each level and ``"mean"``; NaN without rows.
    """
    values = np.asarray(ious, dtype=np.float64).ravel()
    shares = {_percent(level): float((values >= level).mean()) if values.size else float("nan") for level in levels}
    shares["mean"] = float(np.mean(list(shares.values())))
    return shares


def _percent(level: float) -> str:
    return f"{level * 100:g}"


_COUNTS = ("rows", "rows_without_box", "rows_missing", "rows_objectless", "true_negatives", "_recalled", "_truths")


@dataclass
class BoxEvaluation:
    """Figures of ordered box sets (proposals, pseudo-boxes, detector output) against ground truth, row by row.

    The first box of a row is its prediction, the others are further candidates in falling order. Every row is counted
    somewhere: a row without ground truth is outside the denominators and counted in ``rows_without_box``; a row with
    ground truth but no box scores 0 everywhere and is counted in ``rows_missing``.

    Parameters
    ----------
    best_of : int
        How many leading boxes ``iou_best5`` looks at.
    inclusive : bool
        Box convention (see the module).

    Examples
    --------
    >>> score = BoxEvaluation()
    >>> score.add([[0, 0, 10, 10]], [[0, 0, 10, 5]], size=(10, 10))
    >>> score.result()["iou_top1"]
    0.5
    """

    best_of: int = 5
    inclusive: bool = False
    rows: int = 0
    rows_without_box: int = 0
    rows_missing: int = 0
    rows_objectless: int = 0
    true_negatives: int = 0
    _sums: dict[str, int] = field(default_factory=dict)
    _recalled: int = 0
    _truths: int = 0

    def add(
        self,
        boxes: ArrayLike,
        truth: ArrayLike,
        *,
        size: tuple[float, float],
        objectless: bool = False,
    ) -> None:
        """Count one row.

        Parameters
        ----------
        boxes : array_like [K, 4]
            The row's boxes, best first; NaN padding and K = 0 are legal.
        truth : array_like [M, 4]
            Ground-truth boxes in the same coordinates; M = 0 is legal.
        size : (width, height)
            Size of the image in those coordinates (for the centred box).
        objectless : bool
            The row's class has no object: it is a true negative when no box is given.
        """
        candidates, targets = as_boxes(boxes), as_boxes(truth)
        self.rows += 1
        if objectless:
            self.rows_objectless += 1
            self.true_negatives += int(len(candidates) == 0)
            return
        if not len(targets):
            self.rows_without_box += 1
            return
        self.rows_missing += int(len(candidates) == 0)
        ious = iou_per_box(candidates, targets, inclusive=self.inclusive) if len(candidates) else np.zeros(1)
        self._add("iou_top1", ious[0])
        self._add("iou_best5", ious[: self.best_of].max())
        self._add("iou_candidates", ious.mean())
        self._add("iou_upper", ious.max())
        self._add("iou_centre", best_iou(centred_box(*size), targets, inclusive=self.inclusive))
        for level in LEVELS:
            self._add(f"top1_{_percent(level)}", float(ious[0] >= level))
        matched = (iou_matrix(candidates, targets, inclusive=self.inclusive) >= 0.5).any(axis=0)
        self._recalled += int(matched.sum())
        self._truths += len(targets)

    def _add(self, name: str, share: float) -> None:
        self._sums[name] = self._sums.get(name, 0) + round(float(share) * FIXED_POINT)

    def merge(self, other: BoxEvaluation) -> None:
        """Add another accumulator's rows; the order of merging does not change a bit of the result."""
        if (self.best_of, self.inclusive) != (other.best_of, other.inclusive):
            msg = "accumulators of different conventions cannot be merged"
            raise DataError(msg)
        for name in (
            "rows",
            "rows_without_box",
            "rows_missing",
            "rows_objectless",
            "true_negatives",
            "_recalled",
            "_truths",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, total in other._sums.items():
            self._sums[name] = self._sums.get(name, 0) + total

    def result(self) -> dict[str, float | int | None]:
        """Return the figures; shares and IoU are fractions 0..1, None where no row could be scored.

        ``iou_top1``: mean IoU of the first box; ``iou_best5``: best of the first ``best_of``; ``iou_candidates``: mean
        over a row's boxes, then over rows; ``iou_upper``: best of all; ``iou_centre``: the centred box;
        ``recall50_top1``: share of rows whose first box reaches IoU 0.5; ``recall50_candidates``: share of ground-truth
        boxes that some box meets with IoU 0.5; ``box_maxboxacc_v2``: mean share of first boxes at 0.3, 0.5 and 0.7.
        """
        scored = self.rows - self.rows_without_box - self.rows_objectless

        def mean(name: str) -> float | None:
            return self._sums.get(name, 0) / FIXED_POINT / scored if scored else None

        shares = {_percent(level): mean(f"top1_{_percent(level)}") for level in LEVELS}
        known = [share for share in shares.values() if share is not None]
        return {
            "rows": self.rows,
            "rows_scored": scored,
            "rows_without_box": self.rows_without_box,
            "rows_missing": self.rows_missing,
            "rows_objectless": self.rows_objectless,
            "true_negatives": self.true_negatives,
            "iou_top1": mean("iou_top1"),
            "iou_best5": mean("iou_best5"),
            "iou_candidates": mean("iou_candidates"),
            "iou_upper": mean("iou_upper"),
            "iou_centre": mean("iou_centre"),
            "recall50_top1": shares["50"],
            "recall50_candidates": self._recalled / self._truths if self._truths else None,
            **{f"box_maxboxacc_{name}": share for name, share in shares.items()},
            "box_maxboxacc_v2": float(np.mean(known)) if known else None,
        }
