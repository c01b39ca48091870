"""Maps stretched as the standard evaluator stretches them: a stretched map scores as the map itself does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.images.interpolation import bicubic_taps
from wsolpipe.maps.compilation import compiled

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


@compiled
def _stretch(
    maps: NDArray[np.float32],
    rows: NDArray[np.int64],
    row_weights: NDArray[np.float32],
    columns: NDArray[np.int64],
    column_weights: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    count, height, _ = maps.shape
    wide = np.empty((height, len(columns)), np.float32)
    for number in range(count):
        if maps[number].min() == maps[number].max():
            out[number] = maps[number, 0, 0]  # weights add up to 1 but for rounding, which would be all of its contrast
            continue
        for y in range(height):
            for x in range(len(columns)):
                total = np.float32(0)
                for tap in range(4):
                    total += column_weights[x, tap] * maps[number, y, columns[x, tap]]
                wide[y, x] = total
        for y in range(len(rows)):
            one, two, three, four = wide[rows[y, 0]], wide[rows[y, 1]], wide[rows[y, 2]], wide[rows[y, 3]]
            a, b, c, d = row_weights[y, 0], row_weights[y, 1], row_weights[y, 2], row_weights[y, 3]
            target = out[number, y]
            for x in range(len(columns)):
                target[x] = a * one[x] + b * two[x] + c * three[x] + d * four[x]


def stretch(maps: NDArray[np.floating[Any]], size: tuple[int, int]) -> NDArray[np.float32]:
    """Stretch maps to another size, bicubic.

    Parameters
    ----------
    maps : float array [..., h, w]
        Finite.
    size : (int, int)
        Height and width wanted.

    Returns
    -------
    float32 array [..., H, W]
        A copy; values may leave the range of the source. A constant map stays constant.

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
    _stretch(flat, *bicubic_taps(maps.shape[-2], size[0]), *bicubic_taps(maps.shape[-1], size[1]), out)
    return out.reshape(*maps.shape[:-2], *size)
