"""Maps stretched to another size: bilinear as torch does, or bicubic as the standard evaluator does.

Pixel centres lie at half-integers (``align_corners=False``), edges are repeated, nothing is antialiased. Where the
trainer and the pipeline stretch the same stored map, both get the same numbers: bilinear equals
``torch.nn.functional.interpolate`` to 1e-5 of the map's span, and a map that was stretched bicubically scores as the
map itself does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.maps.compilation import compiled
from wsolpipe.maps.levels import bicubic_taps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Taps = tuple[NDArray[np.int64], NDArray[np.float32]]


@compiled
def _resample(
    maps: NDArray[np.float32],
    rows: NDArray[np.int64],
    row_weights: NDArray[np.float32],
    columns: NDArray[np.int64],
    column_weights: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write weighted sums of maps [N, h, w] into [N, H, W]; places and weights of each axis are [side, taps]."""
    (count, height, width), taps = maps.shape, rows.shape[1]
    wide = np.empty((height, len(columns)), np.float32)
    for number in range(count):
        source, first = maps[number].ravel(), maps[number, 0, 0]
        place = 1
        while place < height * width and source[place] == first:
            place += 1
        if place == height * width:
            out[number] = first  # weights add up to 1 but for rounding, which would be all of its contrast
            continue
        for y in range(height):
            for x in range(len(columns)):
                total = column_weights[x, 0] * maps[number, y, columns[x, 0]]
                total += column_weights[x, 1] * maps[number, y, columns[x, 1]]
                if taps == 4:
                    total += column_weights[x, 2] * maps[number, y, columns[x, 2]]
                    total += column_weights[x, 3] * maps[number, y, columns[x, 3]]
                wide[y, x] = total
        if taps == 2:
            for y in range(len(rows)):
                one, two, a, b = wide[rows[y, 0]], wide[rows[y, 1]], row_weights[y, 0], row_weights[y, 1]
                target = out[number, y]
                for x in range(len(columns)):
                    target[x] = a * one[x] + b * two[x]
            continue
        for y in range(len(rows)):
            one, two, three, four = wide[rows[y, 0]], wide[rows[y, 1]], wide[rows[y, 2]], wide[rows[y, 3]]
            a, b, c, d = row_weights[y, 0], row_weights[y, 1], row_weights[y, 2], row_weights[y, 3]
            target = out[number, y]
            for x in range(len(columns)):
                target[x] = a * one[x] + b * two[x] + c * three[x] + d * four[x]


@lru_cache(maxsize=64)
def _bilinear_taps(source: int, target: int) -> Taps:
    """Places [target, 2] in the source and weights [target, 2] of each place of the target, along one axis."""
    centres = np.maximum((np.arange(target) + 0.5) * (source / target) - 0.5, 0.0)
    left = np.minimum(np.floor(centres).astype(np.int64), source - 1)
    share = (centres - left).astype(np.float32)
    return np.stack([left, np.minimum(left + 1, source - 1)], 1), np.stack([np.float32(1) - share, share], 1)


def upsample(maps: Floats, size: tuple[int, int], *, cubic: bool = False) -> NDArray[np.float32]:
    """Stretch maps to another size, bilinear or bicubic.

    Parameters
    ----------
    maps : float array [..., h, w]
        Maps; values may be anything, NaN spreads to its neighbours.
    size : (int, int)
        Height and width wanted. Smaller than the map is allowed and samples without antialiasing.
    cubic : bool
        Bicubic, as the standard evaluator stretches maps; values may then leave the range of the source.

    Returns
    -------
    float32 array [..., H, W]
        A copy. A point at (x, y) of the map, counted from its outer corner, lies at (x * W / w, y * H / h); a constant
        map stays constant.

    Raises
    ------
    DataError
        If a map or the size has no pixel.
    """
    maps = np.asarray(maps, dtype=np.float32)
    if maps.ndim < 2 or min(*maps.shape[-2:], *size) < 1:
        msg = f"cannot stretch maps of shape {list(maps.shape)} to {list(size)}: each side needs at least one pixel"
        raise DataError(msg)
    flat = np.ascontiguousarray(maps).reshape(-1, *maps.shape[-2:])
    out = np.empty((len(flat), *size), np.float32)
    taps = bicubic_taps if cubic else _bilinear_taps
    _resample(flat, *taps(maps.shape[-2], size[0]), *taps(maps.shape[-1], size[1]), out)
    return out.reshape(*maps.shape[:-2], *size)
