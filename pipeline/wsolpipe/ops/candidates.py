"""Candidate boxes of one image from its attention maps (DiPS, Algorithm 2.1, steps before the classifier)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wsolpipe.maps.foreground import otsu_thresholds, tight_boxes
from wsolpipe.maps.resize import upsample

if TYPE_CHECKING:
    from numpy.typing import NDArray

Fallback = Literal["none", "largest", "whole"]


@dataclass(frozen=True)
class Candidates:
    """Candidate boxes of one image.

    Attributes
    ----------
    boxes : int64 array [B, 4], B >= 1
        xyxy, half-open, in pixels of the grid on which maps were thresholded; no two alike.
    source : int64 array [B]
        Position, among the maps given, of the first map that has this box.
    fallback : "none", "largest" or "whole"
        "none" if boxes passed `min_area`, else the box used instead.
    """

    boxes: NDArray[np.int64]
    source: NDArray[np.int64]
    fallback: Fallback

    def areas(self) -> NDArray[np.int64]:
        """Area of each box in pixels of the grid."""
        result: NDArray[np.int64] = (self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1])
        return result


def stretch_levels(maps: NDArray[Any], size: int) -> NDArray[np.uint8]:
    """Upsample maps and stretch each over 256 levels.

    Parameters
    ----------
    maps : uint8 or float array [M, h, w]
        Finite values; only their order and spacing count, so stored levels give the same result as the values.
    size : int
        Side of the grid.

    Returns
    -------
    uint8 array [M, size, size]
        ``floor(255 * (value - low) / (high - low))`` with each map's own low and high, 0 everywhere in a constant map.
        In float64 and with the product first, since truncation makes a whole level of a rounding error: from 7, 14, 28
        or 56 pixels a side to 224 every step is exact.
    """
    large = upsample(maps, (size, size)).astype(np.float64)
    low, high = large.min(axis=(1, 2), keepdims=True), large.max(axis=(1, 2), keepdims=True)
    spread = np.where(high > low, high - low, 1.0)
    levels: NDArray[np.uint8] = np.floor(255.0 * (large - low) / spread).astype(np.uint8)
    return levels


def find_candidates(
    maps: NDArray[Any], *, size: int = 224, min_area: float = 0.0, threshold: float | None = None
) -> Candidates:
    """Tight boxes of the connected regions above Otsu's threshold of each map, or above a fixed one.

    Parameters
    ----------
    maps : array [M, h, w]
        Attention maps of one image, M >= 1, finite.
    size : int
        Side of the grid to which maps are stretched before anything is thresholded.
    min_area : float
        A box passes where its area is more than this share of the image.
    threshold : float, optional
        Share of each map's span, instead of Otsu's threshold.

    Returns
    -------
    Candidates
        In order of map, then of each region's first pixel. Regions are 8-connected and *strictly* above the threshold.
        If no box passes, the largest one is kept (the first of equals); if there is no region at all, the whole image,
        with the first map as its source.
    """
    levels = stretch_levels(maps, size)
    cuts = otsu_thresholds(levels) if threshold is None else np.full(len(levels), int(255 * threshold))
    above = levels > cuts[:, None, None]
    found = [tight_boxes(mask)[0].astype(np.int64) for mask in above]
    boxes = np.concatenate(found)
    source = np.repeat(np.arange(len(found)), [len(part) for part in found])
    if not len(boxes):
        return Candidates(np.array([[0, 0, size, size]]), np.zeros(1, np.int64), "whole")
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    passing = areas > min_area * size * size
    if not passing.any():
        largest = [int(areas.argmax())]
        return Candidates(boxes[largest], source[largest], "largest")
    boxes, source = boxes[passing], source[passing]
    first = np.sort(np.unique(boxes, axis=0, return_index=True)[1])
    return Candidates(boxes[first], source[first], "none")


def rank(scores: NDArray[np.float32], source: NDArray[np.int64], boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order of boxes: best score first, then lowest source, then lowest x0, y0, x1, y1.

    Parameters
    ----------
    scores, source, boxes : arrays [B], [B], [B, 4]
        Of one image; scores without NaN.

    Returns
    -------
    int64 array [B]
        Positions from best to worst; the same whatever order the boxes came in.
    """
    return np.lexsort((*boxes.T[::-1], source, -scores))
