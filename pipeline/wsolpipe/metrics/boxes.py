"""Boxes against boxes: IoU, recall, shares at fixed levels, and the figures of threshold-free box sets.

Boxes are float arrays [N, 4] as (x0, y0, x1, y1). Every function knows two conventions:

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
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

#: IoU levels of MaxBoxAccV2.
LEVELS = (0.3, 0.5, 0.7)

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
    if (array[:, :2] <= array[:, 2:]).all():  # of NaN it is false
        return array
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


def centred_boxes(sizes: Floats, *, side: float = 0.8) -> Floats:
    """Return ``centred_box`` of many images: boxes [N, 4] of sizes [N, 2] as (width, height)."""
    margin = (1.0 - side) / 2.0
    return np.concatenate([sizes * margin, sizes * (1.0 - margin)], axis=1)


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


def _compacted(boxes: ArrayLike) -> Floats:
    """Boxes [N, K, 4] with each row's padding behind its boxes, K at least 1."""
    array = np.asarray(boxes, np.float64)
    if array.ndim != 3 or array.shape[2] != 4:
        msg = f"boxes of many rows must have the shape [N, K, 4], not {list(array.shape)}"
        raise DataError(msg)
    if not array.shape[1]:
        return np.full((len(array), 1, 4), np.nan)
    missing = np.asarray(np.isnan(array).any(axis=2))
    if (missing[:, :-1] & ~missing[:, 1:]).any():
        array = np.take_along_axis(array, np.argsort(missing, axis=1, kind="stable")[..., None], axis=1)
    return array


def _ious_with_own(boxes: Floats, truth: Floats, *, inclusive: bool) -> Floats:
    """IoU [A, K] of boxes [A, K, 4] with one ground-truth box [A, 4] each; NaN at missing boxes."""
    other, extra = truth[:, None], float(inclusive)
    sides = np.minimum(boxes[..., 2:], other[..., 2:]) - np.maximum(boxes[..., :2], other[..., :2]) + extra
    overlap = np.maximum(sides, 0.0).prod(axis=-1)
    areas = [(each[..., 2:] - each[..., :2] + extra).prod(axis=-1) for each in (boxes, other)]
    union = areas[0] + areas[1] - overlap
    return np.asarray(
        np.where(union > 0, overlap / np.where(union > 0, union, 1.0), np.where(np.isnan(union), np.nan, 0.0))
    )


_COUNTS = ("rows", "rows_without_box", "rows_missing", "rows_objectless", "true_negatives", "_recalled", "_truths")


@dataclass(frozen=True)
class RowIous:
    """IoU of the rows that count.

    Attributes
    ----------
    places : int64 [n]
        Positions of these rows among those that were added.
    values : dict of str to float64 [n]
        ``iou_top1``, ``iou_best5``, ``iou_candidates``, ``iou_upper`` and ``iou_centre`` of each of them.
    """

    places: NDArray[np.int64]
    values: dict[str, Floats]


@dataclass
class BoxEvaluation:
    """Figures of ordered box sets (proposals, pseudo-boxes, detector output) against ground truth.

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
        targets = as_boxes(truth)
        self.add_rows(as_boxes(boxes)[None], np.zeros(len(targets), np.int64), targets, [size], [objectless])

    def add_rows(
        self,
        boxes: ArrayLike,
        truth_rows: ArrayLike,
        truth: ArrayLike,
        sizes: ArrayLike,
        objectless: ArrayLike | None = None,
    ) -> RowIous:
        """Count many rows at once.

        Parameters
        ----------
        boxes : float [N, K, 4]
            Boxes of each row, best first, NaN where there is none.
        truth_rows : int [A]
            Position in 0..N-1 of the row that each ground-truth box belongs to.
        truth : float [A, 4]
            Ground-truth boxes in the same coordinates.
        sizes : float [N, 2]
            (width, height) of each image in those coordinates (for the centred box).
        objectless : bool [N], optional
            Rows whose class has no object: true negatives where no box is given.

        Returns
        -------
        RowIous
            Of the rows with ground truth of a class that has an object.

        Raises
        ------
        DataError
            If a box has its far edge before its near edge.
        """
        given, targets = _compacted(boxes), np.asarray(truth, np.float64).reshape(-1, 4)
        count, owners = len(given), np.asarray(truth_rows, np.int64)
        silent = np.zeros(count, np.bool_) if objectless is None else np.asarray(objectless, np.bool_)
        as_boxes(given.reshape(-1, 4))  # refuses inverted boxes
        as_boxes(targets)
        counted = ~silent[owners]
        owners, targets = owners[counted], targets[counted]
        present = np.asarray(~np.isnan(given).any(axis=2))
        known = np.zeros(count, np.bool_)
        known[owners] = True
        places = np.flatnonzero(known)
        self.rows += count
        self.rows_objectless += int(silent.sum())
        self.true_negatives += int((silent & ~present.any(axis=1)).sum())
        self.rows_without_box += int((~silent & ~known).sum())
        self.rows_missing += int((~present[places].any(axis=1)).sum())
        overlap = _ious_with_own(given[owners], targets, inclusive=self.inclusive)  # [A, K], NaN where there is no box
        best = np.full(given.shape[:2], np.nan)
        np.fmax.at(best, owners, overlap)
        ious = np.nan_to_num(best[places])
        centre = np.zeros(count)
        middle = centred_boxes(np.asarray(sizes, np.float64).reshape(-1, 2))
        np.maximum.at(centre, owners, _ious_with_own(middle[owners][:, None], targets, inclusive=self.inclusive)[:, 0])
        values = {
            "iou_top1": ious[:, 0],
            "iou_best5": ious[:, : self.best_of].max(axis=1),
            "iou_candidates": ious.sum(axis=1) / present[places].sum(axis=1).clip(1),
            "iou_upper": ious.max(axis=1),
            "iou_centre": centre[places],
        }
        for name, shares in values.items():
            self._add(name, shares)
        for level in LEVELS:
            for name in ("top1", "centre"):
                self._add(f"{name}_{_percent(level)}", (values[f"iou_{name}"] >= level).astype(np.float64))
        self._recalled += int((np.nan_to_num(overlap) >= 0.5).any(axis=1).sum())
        self._truths += len(targets)
        return RowIous(places, values)

    def _add(self, name: str, shares: Floats) -> None:
        self._sums[name] = self._sums.get(name, 0) + int(np.rint(shares * FIXED_POINT).astype(np.int64).sum())

    def merge(self, other: BoxEvaluation) -> None:
        """Add another accumulator's rows; the order of merging does not change a bit of the result."""
        if (self.best_of, self.inclusive) != (other.best_of, other.inclusive):
            msg = "accumulators of different conventions cannot be merged"
            raise DataError(msg)
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, total in other._sums.items():
            self._sums[name] = self._sums.get(name, 0) + total

    def result(self) -> dict[str, float | int | None]:
        """Return the figures; shares and IoU are fractions 0..1, None where no row could be scored.

        ``iou_top1``: mean IoU of the first box; ``iou_best5``: best of the first ``best_of``; ``iou_candidates``: mean
        over a row's boxes, then over rows; ``iou_upper``: best of all; ``iou_centre``: the centred box;
        ``recall50_top1``: share of rows whose first box reaches IoU 0.5; ``recall50_candidates``: share of ground-truth
        boxes that some box meets with IoU 0.5; ``box_maxboxacc_v2``: mean share of first boxes at 0.3, 0.5 and 0.7;
        ``recall50_centre`` and ``box_maxboxacc_v2_centre``: the same of the centred box.
        """
        scored = self.rows - self.rows_without_box - self.rows_objectless

        def mean(name: str) -> float | None:
            return self._sums.get(name, 0) / FIXED_POINT / scored if scored else None

        shares, centre = (
            {_percent(level): mean(f"{name}_{_percent(level)}") for level in LEVELS} for name in ("top1", "centre")
        )
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
            "box_maxboxacc_v2": _mean(shares.values()),
            "recall50_centre": centre["50"],
            "box_maxboxacc_v2_centre": _mean(centre.values()),
        }


def _mean(shares: Iterable[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known else None
