"""Between real-valued maps and the 256 levels in which they are stored and thresholded.

A map is the last two axes; everything before them is batch. A constant map carries no place: min-max makes it all
zero, and storage keeps its value in `range`, so that it comes back exactly. Non-finite values have no level and are
refused.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.floating[Any]]


TOP = 255


def _extremes(maps: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if maps.ndim < 2 or maps.shape[-1] == 0 or maps.shape[-2] == 0:
        msg = f"a map has a height and a width of at least one pixel; got {list(maps.shape)}"
        raise DataError(msg)
    return maps.min(axis=(-2, -1), keepdims=True), maps.max(axis=(-2, -1), keepdims=True)


def minmax(maps: ArrayLike, *, strict: bool = True) -> Floats:
    """Scale each map to 0..1 by its own lowest and highest value: ``(map - low) / (high - low)``, in its own type.

    Parameters
    ----------
    maps : array [..., h, w]
        float32 stays float32; whole numbers become float64.
    strict : bool
        Refuse NaN and infinite values; else a map that holds NaN becomes all 0, as in the standard evaluator.

    Returns
    -------
    float array [..., h, w]
        Lowest pixel 0, highest exactly 1; a constant map is all 0.

    Raises
    ------
    DataError
        If a map has no pixel, or holds values that are refused.
    """
    array = np.asarray(maps)
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    low, high = _extremes(array)
    if strict:
        _require_finite(low, high)
    with np.errstate(invalid="ignore"):
        span = high - low
        return np.asarray(np.where(span > 0, (array - low) / np.where(span > 0, span, 1), 0)).astype(array.dtype)


def peak(score: ArrayLike) -> NDArray[np.float64]:
    """Centre (x, y) of the highest pixel of a map [h, w], in pixels of that map; the first in raster order on ties."""
    array = np.asarray(score)
    y, x = np.unravel_index(int(np.nanargmax(array)), array.shape)
    return np.array([x + 0.5, y + 0.5])


def to_uint8(maps: Floats) -> NDArray[np.uint8]:
    """Levels of maps that are already in [0, 1], by truncation: ``floor(255 * map)``.

    Parameters
    ----------
    maps : float array of any shape
        Values in [0, 1]; rounding errors up to 1e-5 outside are tolerated.

    Returns
    -------
    uint8 array, same shape
        255 only where the map is 1.

    Raises
    ------
    DataError
        If a value is outside [0, 1] or not finite.
    """
    maps = np.asarray(maps, dtype=np.float32)
    if maps.size and not (maps.min() >= -1e-5 and maps.max() <= 1 + 1e-5):
        msg = f"levels are taken of maps in [0, 1]; got {maps.min()} … {maps.max()}: see minmax"
        raise DataError(msg)
    return np.asarray(np.clip(maps, 0, 1) * np.float32(TOP)).astype(np.uint8)


def quantise(maps: Floats) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Store maps as levels between their own low and high.

    Parameters
    ----------
    maps : float array [..., h, w]
        Any finite values.

    Returns
    -------
    levels : uint8 array [..., h, w]
        Nearest of 256 levels, low is 0 and high is 255; all 0 where the map is constant.
    range : float32 array [..., 2]
        (low, high) of each map.

    Raises
    ------
    DataError
        If a value is NaN or infinite, or a map has no pixel.
    """
    maps = np.asarray(maps, dtype=np.float32)
    low, high = _extremes(maps)
    _require_finite(low, high)
    # In float64, so that what is stored is within half a step and not half a step plus rounding.
    wide, spread = maps.astype(np.float64), high.astype(np.float64) - low
    levels = np.rint((wide - low) * (TOP / np.where(spread > 0, spread, 1.0)))
    return levels.astype(np.uint8), np.stack([low[..., 0, 0], high[..., 0, 0]], axis=-1)


def dequantise(levels: NDArray[np.uint8], limits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo `quantise`, to within half a step ``(high - low) / 510``.

    Parameters
    ----------
    levels : uint8 array [..., h, w]
        Stored map.
    limits : float32 array [..., 2]
        Its ``range``: (low, high).

    Returns
    -------
    float32 array [..., h, w]
        Level 0 is low, level 255 is high; a constant map comes back exactly.
    """
    low, high = (limits[..., side, None, None].astype(np.float64) for side in (0, 1))
    return np.asarray(low + levels * ((high - low) / TOP), dtype=np.float32)


def _require_finite(low: NDArray[Any], high: NDArray[Any]) -> None:
    bad = ~(np.isfinite(low) & np.isfinite(high))
    if bad.any():
        msg = f"{int(bad.sum())} of {bad.size} maps hold NaN or infinite values"
        raise DataError(msg)


#: Parameter a of OpenCV's bicubic kernel.
SHARPNESS = -0.75


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
