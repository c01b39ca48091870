"""Otsu's threshold over 256 grey levels (N. Otsu, "A threshold selection method from gray-level histograms", 1979).

The threshold t splits levels into {0 … t} and {t + 1 … 255}; foreground is *strictly above* it. It maximises the
between-class variance, as ``skimage.filters.threshold_otsu`` and ``cv2.threshold(..., THRESH_OTSU)`` do.

Ties: the lowest t wins, so t is always a level that occurs. Sums are exact integers, thus a run of empty levels gives
exactly equal variances here, while implementations that update running means may drift to another t inside the run;
the mask is the same. A constant map has no two classes: its own value is returned, nothing lies above it (skimage does
the same, cv2 returns 0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.maps.compilation import compiled

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

LEVELS = 256


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


def otsu_from_histograms(counts: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Threshold of each histogram.

    Parameters
    ----------
    counts : integer array [B, 256]
        Pixels a level.

    Returns
    -------
    int64 array [B]
        Largest level that is still background; 0 for an empty histogram.

    Raises
    ------
    DataError
        If the last axis is not 256 long.
    """
    if counts.ndim != 2 or counts.shape[1] != LEVELS:
        msg = f"histograms must have the shape [B, {LEVELS}], not {list(counts.shape)}"
        raise DataError(msg)
    return _thresholds(np.ascontiguousarray(counts, dtype=np.int64))


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
