"""The foreground of a map: Otsu's threshold, connected regions and their tight boxes.

Otsu's threshold t over 256 grey levels (N. Otsu, "A threshold selection method from gray-level histograms", 1979)
splits them into {0 … t} and {t + 1 … 255}; foreground is *strictly above* it. It maximises the between-class variance,
as ``skimage.filters.threshold_otsu`` and ``cv2.threshold(..., THRESH_OTSU)`` do. Of equal variances the lowest t wins,
so t is always a level that occurs. Sums are exact integers, thus a run of empty levels gives exactly equal variances,
while implementations that update running means may drift to another t inside the run; the mask is the same. A constant
map has no two classes: its own value is returned, nothing lies above it (skimage does the same, cv2 returns 0).

Regions are numbered in raster order of their first pixel (topmost row, then leftmost). Boxes are float32 xyxy,
half-open, in pixels of the mask: a single pixel at row 2, column 5 has the box (5, 2, 6, 3).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.maps.compilation import compiled
from wsolpipe.maps.levels import minmax, to_uint8
from wsolpipe.maps.resize import upsample


@compiled
def _root(parents: NDArray[np.int32], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@compiled
def _join(parents: NDArray[np.int32], first: int, second: int) -> int:
    a, b = _root(parents, first), _root(parents, second)
    # The smaller number is the older label: a region keeps the label of its first pixel.
    if a < b:
        parents[b] = a
        return a
    parents[a] = b
    return b


@compiled
def _label(mask: NDArray[np.bool_], diagonal: bool, labels: NDArray[np.int32]) -> int:  # noqa: FBT001
    height, width = mask.shape
    # No two provisional labels can start side by side, so half of the pixels of each row is enough.
    parents = np.zeros(height * ((width + 1) // 2) + 1, np.int32)
    used = 0
    for y in range(height):
        for x in range(width):
            if not mask[y, x]:
                continue
            label = 0
            if x > 0 and mask[y, x - 1]:
                label = labels[y, x - 1]
            if y > 0:
                for step in range(-1 if diagonal else 0, 2 if diagonal else 1):
                    near = x + step
                    if 0 <= near < width and mask[y - 1, near]:
                        above = labels[y - 1, near]
                        label = above if label == 0 else _join(parents, label, above)
            if label == 0:
                used += 1
                parents[used] = used
                label = used
            labels[y, x] = label
    final = np.zeros(used + 1, np.int32)
    regions = 0
    for number in range(1, used + 1):
        root = _root(parents, number)
        if root == number:
            regions += 1
            final[number] = regions
        else:
            final[number] = final[root]
    for y in range(height):
        for x in range(width):
            labels[y, x] = final[labels[y, x]]
    return regions


@compiled
def _measure(labels: NDArray[np.int32], boxes: NDArray[np.float32], areas: NDArray[np.int64]) -> None:
    height, width = labels.shape
    for number in range(boxes.shape[0]):
        boxes[number, 0] = width
        boxes[number, 1] = height
    for y in range(height):
        for x in range(width):
            number = labels[y, x] - 1
            if number >= 0:
                areas[number] += 1
                boxes[number, 0] = min(boxes[number, 0], x)
                boxes[number, 1] = min(boxes[number, 1], y)
                boxes[number, 2] = max(boxes[number, 2], x + 1)
                boxes[number, 3] = max(boxes[number, 3], y + 1)


def label(mask: NDArray[np.bool_], *, connectivity: int = 8) -> tuple[NDArray[np.int32], int]:
    """Number the connected regions of a mask.

    Parameters
    ----------
    mask : bool array [H, W]
        True is foreground.
    connectivity : {8, 4}
        Whether pixels that touch at a corner belong together.

    Returns
    -------
    labels : int32 array [H, W]
        0 is background, regions count from 1 in raster order of their first pixel.
    regions : int
        How many there are.

    Raises
    ------
    DataError
        If the mask is not a boolean array of two axes.
    ConfigError
        If the connectivity is neither 4 nor 8.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        msg = f"regions are taken of a boolean mask [H, W], not of {mask.dtype} {list(mask.shape)}"
        raise DataError(msg)
    if connectivity not in (4, 8):
        msg = f"connectivity must be 4 or 8, not {connectivity}"
        raise ConfigError(msg)
    labels = np.zeros(mask.shape, np.int32)
    regions = _label(np.ascontiguousarray(mask), connectivity == 8, labels)
    return labels, int(regions)


def tight_boxes(mask: NDArray[np.bool_], *, connectivity: int = 8) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Tight box and pixel count of each connected region (DiPS, algorithm 2.1).

    Parameters
    ----------
    mask : bool array [H, W]
        True is foreground.
    connectivity : {8, 4}
        Whether pixels that touch at a corner belong together.

    Returns
    -------
    boxes : float32 array [R, 4]
        xyxy, half-open, pixels of the mask, in raster order of each region's first pixel; R may be 0.
    areas : int64 array [R]
        Pixels of each region (not of its box).

    Raises
    ------
    DataError, ConfigError
        As `label`.
    """
    labels, regions = label(mask, connectivity=connectivity)
    boxes, areas = np.zeros((regions, 4), np.float32), np.zeros(regions, np.int64)
    _measure(labels, boxes, areas)
    return boxes, areas


def largest_region_box(mask: NDArray[np.bool_], *, connectivity: int = 8) -> NDArray[np.float32] | None:
    """Tight box of the region with the most pixels.

    Parameters
    ----------
    mask : bool array [H, W]
        True is foreground.
    connectivity : {8, 4}
        Whether pixels that touch at a corner belong together.

    Returns
    -------
    float32 array [4] or None
        xyxy, half-open, pixels of the mask; of equally large regions the first in raster order; None for an empty mask.

    Raises
    ------
    DataError, ConfigError
        As `label`.
    """
    boxes, areas = tight_boxes(mask, connectivity=connectivity)
    return boxes[int(areas.argmax())] if len(areas) else None


@compiled
def _histograms(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    counts = np.zeros((values.shape[0], 256), np.int64)
    for number in range(values.shape[0]):
        for pixel in range(values.shape[1]):
            counts[number, values[number, pixel]] += 1
    return counts


@compiled
def _thresholds(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    found = np.zeros(counts.shape[0], np.int64)
    for number in range(counts.shape[0]):
        pixels, total = 0, 0
        for level in range(256):
            pixels += counts[number, level]
            total += level * counts[number, level]
        below, sum_below, best = 0, 0, -1.0
        for level in range(256):
            if counts[number, level] == 0:
                continue
            below += counts[number, level]
            sum_below += level * counts[number, level]
            if below == pixels:  # the highest level that occurs: nothing would be above it
                if best < 0:
                    found[number] = level
                break
            # Between-class variance times pixels**2; the difference is an exact integer, only the quotient rounds.
            difference = np.float64(pixels * sum_below - below * total)
            variance = difference * difference / (np.float64(below) * np.float64(pixels - below))
            if variance > best:
                best = variance
                found[number] = level
    return found


def otsu_thresholds(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Threshold of each map of a batch.

    Parameters
    ----------
    values : uint8 array [B, ...]
        Maps; everything after the first axis belongs to one map.

    Returns
    -------
    int64 array [B]
        Foreground of map b is ``values[b] > result[b]``.

    Raises
    ------
    DataError
        If the values are not uint8.
    """
    if values.dtype != np.uint8 or values.ndim < 1:
        msg = f"Otsu's threshold is taken of uint8 maps, not of {values.dtype} {list(values.shape)}: see to_uint8"
        raise DataError(msg)
    flat = (
        np.ascontiguousarray(values).reshape(values.shape[0], -1) if values.size else np.zeros((len(values), 0), "u1")
    )
    return _thresholds(_histograms(flat))


def otsu_threshold(values: NDArray[np.uint8]) -> int:
    """Threshold of one map.

    Parameters
    ----------
    values : uint8 array of any shape
        One map.

    Returns
    -------
    int
        Largest level that is still background; foreground is ``values > result``.

    Raises
    ------
    DataError
        If the values are not uint8.
    """
    return int(otsu_thresholds(values[None])[0])


def otsu_mask(levels: NDArray[Any], side: int) -> NDArray[np.bool_]:
    """Foreground of a map [h, w] stretched to `side`: strictly above Otsu's threshold; empty for a constant map."""
    large = to_uint8(minmax(upsample(np.asarray(levels, np.float32), (side, side))))
    return np.asarray(large > otsu_threshold(large))


def largest_otsu_box(levels: NDArray[Any], size: tuple[int, int], *, side: int = 224) -> NDArray[np.float32] | None:
    """Box [4] of the largest Otsu region of a map, in pixels of an image of `size` (height, width).

    None for a constant map.

    Raises
    ------
    DataError
        If the map holds NaN or infinite values.
    """
    box = largest_region_box(otsu_mask(levels, side))
    return None if box is None else np.asarray(box * (np.array([*size[::-1]] * 2, np.float64) / side), np.float32)
