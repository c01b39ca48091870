"""Candidate boxes of one image from its attention maps (DiPS, Algorithm 2.1, steps before the classifier)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsolpipe.maps.foreground import largest_region_box, otsu_thresholds, tight_boxes
from wsolpipe.maps.resize import upsample
from wsolpipe.metrics.boxes import iou_matrix

Fallback = Literal["none", "largest", "whole"]
Agreement = Literal["agreement", "margin"]


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


def order_boxes(scores: NDArray[np.float32], source: NDArray[np.int64], boxes: NDArray[np.int64]) -> NDArray[np.int64]:
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


def mean_region(mean: NDArray[Any], *, size: int, threshold: float | None = None) -> NDArray[np.float64]:
    """Box [4] of the largest region of the mean map, cut as `find_candidates` does; the whole grid if it has none."""
    levels = stretch_levels(mean[None], size)
    cut = otsu_thresholds(levels)[0] if threshold is None else int(255 * threshold)
    box = largest_region_box(levels[0] > cut)
    return np.array([0, 0, size, size], np.float64) if box is None else box.astype(np.float64)


def agree(scores: NDArray[Any], boxes: NDArray[Any], region: NDArray[Any], *, by: Agreement) -> NDArray[np.float64]:
    """Scores of an image's boxes from those of the classifier and from the overlap with a region of its mean map.

    Posteriors saturate: most boxes of an image reach nearly the same one, and their order is noise.

    Parameters
    ----------
    scores : float array [B]
        Posteriors (``by="agreement"``) or logit margins (``by="margin"``).
    boxes : array [B, 4]
    region : array [4]
        Of `mean_region`.
    by : "agreement" or "margin"
        The posterior times the IoU with the region, or the mean of two ranks: that of the margin and that of the IoU.

    Returns
    -------
    float64 array [B]
        In [0, 1], the greatest best; equal values have equal ranks.
    """
    overlap = iou_matrix(boxes, region[None])[:, 0]
    if by == "agreement":
        return np.asarray(scores * overlap, np.float64)
    last = max(len(boxes) - 1, 1)
    places = [np.searchsorted(np.sort(values), values) / last for values in (scores, overlap)]
    return np.asarray((places[0] + places[1]) / 2 if len(boxes) > 1 else np.ones(len(boxes)), np.float64)


def fuse_boxes(boxes: NDArray[Any], scores: NDArray[Any], *, least: float) -> NDArray[np.float64]:
    """Mean of the boxes near the first one, weighted by their scores (after Solovyev et al., weighted boxes fusion).

    Parameters
    ----------
    boxes, scores : arrays [B, 4], [B]
        Best first, B >= 1.
    least : float
        IoU with the first box from which a box takes part.

    Returns
    -------
    float64 array [4]
    """
    near = iou_matrix(boxes, boxes[:1])[:, 0] >= least
    weights = np.asarray(scores, np.float64)[near]
    weights = weights if weights.sum() > 0 else np.ones(len(weights))
    return np.asarray(weights @ boxes[near] / weights.sum(), np.float64)
