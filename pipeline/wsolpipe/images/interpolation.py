"""Weights of bicubic interpolation as the standard evaluator's: half-pixel centres, replicated border, no antialias.

In numpy alone, for those who read a store without the packages that make one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARPNESS = -0.75
"""Parameter a of OpenCV's bicubic kernel."""


@lru_cache(maxsize=64)
def bicubic_taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Places [target, 4] in the source and weights [target, 4] of each place of the target, along one axis."""
    a = np.float32(SHARPNESS)
    centre = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(centre).astype(np.int64)
    x = (centre - first).astype(np.float32)
    one = np.float32(1)
    far = x + one
    weights = np.empty((target, 4), np.float32)
    weights[:, 0] = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    weights[:, 1] = ((a + 2) * x - (a + 3)) * x * x + one
    weights[:, 2] = ((a + 2) * (one - x) - (a + 3)) * (one - x) * (one - x) + one
    weights[:, 3] = one - weights[:, 0] - weights[:, 1] - weights[:, 2]
    places = np.clip(first[:, None] - 1 + np.arange(4), 0, source - 1)
    places.setflags(write=False)
    weights.setflags(write=False)
    return places, weights
