"""Loops over the pixels of one map: cutting it to 8 bits in a frame, counting its scores by bins."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uintp
from numpy.typing import NDArray

from wsolpipe.maps.compilation import compiled
from wsolpipe.metrics.flood import MARGIN


def framed(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a map [H, W] with a frame of zeros: a row above, a column on the left, `MARGIN` - 1 below and right.

    And as many more as make both sides multiples of 8: rows are whole words then, and so are the loops over them.
    """
    height, width = values.shape
    frame = _frame(height, width)
    frame[1 : height + 1, 1 : width + 1] = values
    return frame


def _frame(height: int, width: int) -> NDArray[np.uint8]:
    return np.zeros([(side + 7) // 8 * 8 + MARGIN for side in (height, width)], np.uint8)


def quantised(score: NDArray[np.float64]) -> tuple[NDArray[np.uint8], bool]:
    """Return ``trunc(255 * score)`` of a map float64 [H, W], framed, and whether all of it was in [0, 1]."""
    values = _frame(*score.shape)
    return values, _truncate(score, values)


@compiled
def _truncate(score: NDArray[np.float64], values: NDArray[np.uint8]) -> bool:
    one, wrong = uintp(1), 0
    for y in range(uintp(score.shape[0])):
        for x in range(uintp(score.shape[1])):
            wrong |= not (0.0 <= score[y, x] <= 1.0)
            values[y + one, x + one] = np.uint8(np.int32(score[y, x] * 255.0))
    return wrong == 0


@compiled
def count_pixels(
    scores: NDArray[np.floating[Any]],
    mask: NDArray[np.bool_],
    ignore: NDArray[np.bool_],
    edges: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> bool:
    """Add the pixels of one map to ``counts`` int64 [2, bins], bin i being ``edges[i] <= score < edges[i + 1]``.

    ``ignore`` is bool [H, W], or empty for none. Returns False, with ``counts`` unusable, if a score is not in [0, 1].
    """
    bins = counts.shape[1]
    thresholds = bins - 2
    # Two turns of counters: neighbours share bins, and a single counter would be a chain of waits.
    turns = np.zeros((4, bins), np.int64)
    flat, truth, skip = scores.ravel(), mask.ravel(), ignore.ravel()
    skipping = skip.size > 0
    for p in range(flat.size):
        value = np.float64(flat[p])
        if not 0.0 <= value <= 1.0:
            return False
        if skipping and skip[p] and not truth[p]:
            continue
        # The product may miss the bin by one where it rounds across an edge.
        place = int(value * thresholds)
        if value < edges[place]:
            place -= 1
        elif value >= edges[place + 1]:
            place += 1
        turns[2 * (p & 1) + truth[p], place] += 1
    for place in range(bins):
        counts[0, place] += turns[0, place] + turns[2, place]
        counts[1, place] += turns[1, place] + turns[3, place]
    return True
