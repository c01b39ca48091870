"""Maps and boxes brought to the evaluator's frame: bicubic resize, min-max, boxes truncated to whole pixels.

The standard evaluator (Choe et al., CVPR 2020) resizes a score map to 224 x 224 with OpenCV's bicubic kernel,
normalises it by its own minimum and maximum in its own type, and scales ground-truth boxes with truncation. All of it
here in numpy, so that trainers need no OpenCV.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.maps import levels
from wsolpipe.metrics.boxes import as_boxes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.floating[Any]]

#: Side of the evaluator's frame in pixels.
SIDE = 224


@lru_cache(maxsize=64)
def _bicubic_matrix(source: int, target: int) -> NDArray[np.float32]:
    """Return the weights [target, source] of one axis."""
    from wsolpipe.maps.levels import bicubic_taps  # whose neighbours load a compiler

    places, weights = bicubic_taps(source, target)
    matrix = np.zeros((target, source), np.float32)
    for tap in range(4):
        np.add.at(matrix, (np.arange(target), places[:, tap]), weights[:, tap])
    return matrix


def resize_maps(maps: ArrayLike, size: tuple[int, int] = (SIDE, SIDE)) -> Floats:
    """Resize score maps bicubically, equal to ``cv2.resize(..., INTER_CUBIC)`` up to rounding.

    Parameters
    ----------
    maps : float [..., h, w]
        float32 stays float32, everything else becomes float64.
    size : (height, width)

    Returns
    -------
    float [..., height, width]
        Bicubic interpolation overshoots: values may leave the range of the source.
    """
    array = np.asarray(maps)
    if array.dtype != np.float32:
        array = array.astype(np.float64)
    if array.ndim < 2 or 0 in array.shape[-2:]:
        msg = f"maps must have the shape [..., h, w], not {list(array.shape)}"
        raise DataError(msg)
    height, width = size
    if array.shape[-2:] == (height, width):
        return array
    across = _bicubic_matrix(array.shape[-1], width).astype(array.dtype)
    down = _bicubic_matrix(array.shape[-2], height).astype(array.dtype)
    return np.asarray(down @ (array @ across.T))


def minmax(maps: ArrayLike) -> Floats:
    """Scale each map [..., H, W] to 0..1 by its own minimum and maximum, in its own type.

    A constant map and one that holds NaN become zeros, as in the standard evaluator; ``unusable`` returns which.
    """
    return levels.minmax(maps, strict=False)


def unusable(maps: ArrayLike) -> NDArray[np.bool_]:
    """Return which maps [..., H, W] are constant or hold NaN or infinity: their ``minmax`` carries no information."""
    array = np.asarray(maps, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        span = array.max(axis=(-2, -1)) - array.min(axis=(-2, -1))
    return np.asarray(~(np.isfinite(span) & (span > 0)))


def standard_maps(maps: ArrayLike, *, side: int = SIDE, normalise: bool = True) -> NDArray[np.float64]:
    """Bring maps [..., h, w] into the evaluator's frame: bicubic to ``side``, min-max in their own type, float64."""
    resized = resize_maps(maps, (side, side))
    return (minmax(resized) if normalise else np.clip(resized, 0, 1)).astype(np.float64)


def standard_boxes(boxes: ArrayLike, size: tuple[float, float], *, side: int = SIDE) -> NDArray[np.float64]:
    """Scale boxes [M, 4] from an image of ``size`` (width, height) to the evaluator's frame, truncated to whole pixels.

    Only the standard convention truncates; for the clean one use ``scaled_boxes``.
    """
    return np.trunc(scaled_boxes(boxes, size, (side, side)))


def scaled_boxes(boxes: ArrayLike, size: tuple[float, float], target: tuple[float, float]) -> NDArray[np.float64]:
    """Scale boxes [M, 4] from an image of ``size`` (width, height) to one of ``target`` (width, height)."""
    (width, height), (to_width, to_height) = size, target
    # Multiplied before it is divided, as the evaluator does: truncation depends on the last bit.
    return np.asarray(as_boxes(boxes) * (to_width, to_height, to_width, to_height) / (width, height, width, height))
