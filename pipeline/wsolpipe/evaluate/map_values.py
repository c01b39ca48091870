"""How values of maps are spread inside and outside of objects: a robust map keeps them apart (DiPS, figure 2.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from wsolpipe.evaluate.frame import FramedBatch
    from wsolpipe.evaluate.truth import Truth

Array = np.ndarray[Any, Any]
BINS = 10


class ValueHistograms:
    """Shares of pixels by value of the framed map, inside and outside of the boxes (masks where there is no box)."""

    def __init__(self) -> None:
        self.counts = np.zeros((2, BINS), np.int64)  # outside, inside

    def add(self, batch: FramedBatch, truth: Truth) -> None:
        """Count a batch of maps; rows without an object or a map have nothing to tell apart."""
        for score, row, silent in zip(batch.framed, batch.rows, batch.objectless, strict=True):
            inside = None if score is None or silent else _inside(truth, int(row), len(score))
            if score is None or inside is None:
                continue
            bins = np.minimum((score * BINS).astype(np.int64), BINS - 1) + BINS * inside
            self.counts += np.bincount(bins.ravel(), minlength=2 * BINS).reshape(2, BINS)

    def result(self, tau: float | None) -> dict[str, Any]:  # noqa: ARG002 - values have no threshold
        """Shares of each kind of pixel in ten bins from 0 to 1; None where no row could be counted."""
        if not self.counts.any():
            return {"values_inside": None, "values_outside": None}
        outside, inside = (self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)).tolist()
        return {"values_inside": inside, "values_outside": outside}


def _inside(truth: Truth, row: int, side: int) -> Array | None:
    boxes = truth.boxes(row)
    if not len(boxes):
        mask = truth.mask(row, side)
        return None if mask is None or not mask[0].any() else mask[0].astype(np.int64)
    width, height = (float(edge) for edge in truth.rows.sizes[row])
    found = np.zeros((side, side), np.int64)
    for x0, y0, x1, y1 in boxes * side / np.array([width, height, width, height]):
        found[int(y0) : max(int(y0) + 1, round(y1)), int(x0) : max(int(x0) + 1, round(x1))] = 1
    return found
