"""Bilinear upsampling of maps with pixel centres at half-integers (``align_corners=False``), without torch.

Where the trainer and the pipeline stretch the same stored map, both get the same numbers: this equals
``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` to 1e-5 of the map's span.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.maps.compilation import compiled

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


@compiled
def _stretch(
    maps: NDArray[np.float32],
    rows: NDArray[np.int64],
    row_shares: NDArray[np.float32],
    columns: NDArray[np.int64],
    column_shares: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    count, height, width = maps.shape
    wide = np.empty((height, len(columns)), np.float32)
    one = np.float32(1)
    for number in range(count):
        for y in range(height):
            for x in range(len(columns)):
                left = columns[x]
                share = column_shares[x]
                right = min(left + 1, width - 1)
                wide[y, x] = (one - share) * maps[number, y, left] + share * maps[number, y, right]
        for y in range(len(rows)):
            top = rows[y]
            share = row_shares[y]
            bottom = min(top + 1, height - 1)
            for x in range(len(columns)):
                out[number, y, x] = (one - share) * wide[top, x] + share * wide[bottom, x]


def _positions(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the left neighbour of each target pixel, and the share of the right one."""
    centres = np.maximum((np.arange(target) + 0.5) * (source / target) - 0.5, 0.0)
    left = np.minimum(np.floor(centres).astype(np.int64), source - 1)
    return left, (centres - left).astype(np.float32)


def upsample(maps: NDArray[np.floating[Any]], size: tuple[int, int]) -> NDArray[np.float32]:
    """Stretch maps to another size, bilinear, edges repeated.

    Parameters
    ----------
    maps : float array [..., h, w]
        Maps; values may be anything, NaN spreads to its neighbours.
    size : (int, int)
        Height and width wanted. Smaller than the map is allowed and samples without antialiasing.

    Returns
    -------
    float32 array [..., H, W]
        A point at (x, y) of the map, counted from its outer corner, lies at (x * W / w, y * H / h).

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
    rows, columns = _positions(maps.shape[-2], size[0]), _positions(maps.shape[-1], size[1])
    _stretch(flat, *rows, *columns, out)
    return out.reshape(*maps.shape[:-2], *size)
