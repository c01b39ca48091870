"""The inner loop of pixel histograms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.maps.compilation import compiled

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


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
