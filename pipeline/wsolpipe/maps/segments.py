"""Maps refined by segments of the image: r = (1 - w) · m + w · (mean of m over the pixel's segment).

Segments are labels of pixels, from 0. One segment alone leaves a map as it is, since its mean would wipe out every
place; a constant map stays constant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.maps.compilation import compiled
from wsolpipe.maps.resize import upsample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = NDArray[np.integer[Any]]


@compiled
def _mix(maps: NDArray[np.float32], labels: NDArray[np.uint16], names: int, w: float) -> None:
    """Mix maps [T, P] in place with their means over labels [P] below `names`, unless there is one label alone."""
    lanes = 4  # pixels go to four tables in turn: one table would wait for its own last addition
    sums, sizes = np.empty((lanes, names)), np.empty((lanes, names), np.int32)
    means, mine = np.empty(names, np.float32), np.float32(1 - w)
    whole = len(labels) // lanes * lanes
    for one in maps:
        sums[:], sizes[:] = 0, 0
        for start in range(0, whole, lanes):
            for lane in range(lanes):
                label = labels[start + lane]
                sums[lane, label] += one[start + lane]
                sizes[lane, label] += 1
        for pixel in range(whole, len(labels)):
            sums[0, labels[pixel]] += one[pixel]
            sizes[0, labels[pixel]] += 1
        found = 0
        for label in range(names):
            size = sizes[0, label] + sizes[1, label] + sizes[2, label] + sizes[3, label]
            total = sums[0, label] + sums[1, label] + sums[2, label] + sums[3, label]
            means[label] = w * total / max(size, 1)
            found += size > 0
        if found == 1:
            return
        for pixel in range(len(labels)):
            one[pixel] = mine * one[pixel] + means[labels[pixel]]


@compiled
def _round(one: NDArray[np.float32], low: np.float32, scale: np.float32, out: NDArray[np.uint8]) -> None:
    half = np.float32(0.5)
    for pixel in range(len(one)):
        out[pixel] = np.uint8((one[pixel] - low) * scale + half)


def mix_segments(maps: NDArray[np.floating[Any]], labels: Labels, w: float) -> NDArray[np.float32]:
    """Mix each pixel of a map with the mean over its segment.

    Parameters
    ----------
    maps : float array [..., h, w]
        Finite; stretched to the size of the labels as the evaluator stretches maps.
    labels : unsigned integer array [H, W]
        Segment of each pixel, below 65,536.
    w : float
        Weight of the mean, 0 to 1.

    Returns
    -------
    float32 array [..., H, W]
        Not scaled; with one segment alone the stretched maps.

    Raises
    ------
    DataError
        If the labels are not one plane of small whole numbers.
    """
    last = int(labels.max()) if labels.size else -1
    if labels.ndim != 2 or not 0 <= last < 1 << 16 or (labels.dtype != np.uint16 and labels.min() < 0):
        msg = f"segments are whole numbers from 0 to 65535 [H, W], not {labels.dtype} {list(labels.shape)}"
        raise DataError(msg)
    wide = upsample(maps, (labels.shape[0], labels.shape[1]), cubic=True)
    if w:
        flat = np.ascontiguousarray(labels, np.uint16).ravel()
        _mix(wide.reshape(-1, flat.size), flat, last + 1, w)
    return wide


def to_levels(maps: NDArray[np.float32], limits: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Store maps that were computed from levels of other maps, such as a refinement of stored levels.

    Parameters
    ----------
    maps : float32 array [T, H, W]
        On the scale of those levels, 0 to 255.
    limits : float32 array [T, 2]
        ``range`` of those other maps.

    Returns
    -------
    levels : uint8 array [T, H, W]
        Min-max per map; 0 where a map is constant.
    range : float32 array [T, 2]
        Low and high of each map in the unit of `limits`.
    """
    levels, found = np.empty(maps.shape, np.uint8), np.empty((len(maps), 2), np.float32)
    for one, (start, end), out, between in zip(maps, limits.tolist(), levels, found, strict=True):
        low, high = one.min(), one.max()
        scale = np.float32(255) / (high - low) if high > low else np.float32(0)
        _round(one.ravel(), low, scale, out.ravel())
        step = (end - start) / 255
        between[0], between[1] = start + float(low) * step, start + float(high) * step
    return levels, found
