"""The two compiled loops over pixels of the CRF filter, which `wsoltrain.losses.crf` explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.maps.compilation import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

LANES = 8
"""Spatial products that are in the grid at once: a length known to the compiler becomes one vector register.

The only definition: the compiled code is cached by the text of this file and would keep a number from another one.
"""


@compiled
def splat(pixels: Floats, cells: Floats, down: Floats, across: Floats, grid: Floats) -> None:
    """Add each pixel's values, times each spatial product, to the eight cells around its colour.

    Parameters
    ----------
    pixels : float32 [H, W, C]
        Values.
    cells : float32 [H, W, 3]
        Colours in cells of the grid.
    down, across : float32 [H, LANES], [W, LANES]
        Factors of the spatial products.
    grid : float32 [n0 * n1 * n2, C, LANES] in the shape [n0, n1, n2, C, LANES]
        Changed in place.
    """
    height, width, channels = pixels.shape
    product = np.empty(LANES, np.float32)
    one = np.float32(1)
    for y in range(height):
        for x in range(width):
            for k in range(LANES):
                product[k] = down[y, k] * across[x, k]
            a, b, c = int(cells[y, x, 0]), int(cells[y, x, 1]), int(cells[y, x, 2])
            pa, pb, pc = cells[y, x, 0] - a, cells[y, x, 1] - b, cells[y, x, 2] - c
            for i in range(2):
                wa = np.float32(pa if i else one - pa)
                for j in range(2):
                    wab = np.float32(wa * (pb if j else one - pb))
                    for m in range(2):
                        weight = np.float32(wab * (pc if m else one - pc))
                        for channel in range(channels):
                            value = np.float32(weight * pixels[y, x, channel])
                            for k in range(LANES):
                                grid[a + i, b + j, c + m, channel, k] += value * product[k]


@compiled
def slice_grid(grid: Floats, cells: Floats, down: Floats, across: Floats, filtered: Floats) -> None:
    """Read the grid back at each pixel's colour and add up the spatial products.

    Parameters
    ----------
    grid : float32 [n0, n1, n2, C, LANES]
        Blurred.
    cells, down, across
        As in `splat`.
    filtered : float32 [H, W, C]
        Changed in place: what is read is added.
    """
    height, width, channels = filtered.shape
    product = np.empty(LANES, np.float32)
    back = np.empty(LANES, np.float32)
    one = np.float32(1)
    for y in range(height):
        for x in range(width):
            for k in range(LANES):
                product[k] = down[y, k] * across[x, k]
            a, b, c = int(cells[y, x, 0]), int(cells[y, x, 1]), int(cells[y, x, 2])
            pa, pb, pc = cells[y, x, 0] - a, cells[y, x, 1] - b, cells[y, x, 2] - c
            for channel in range(channels):
                for k in range(LANES):
                    back[k] = 0
                for i in range(2):
                    wa = np.float32(pa if i else one - pa)
                    for j in range(2):
                        wab = np.float32(wa * (pb if j else one - pb))
                        for m in range(2):
                            weight = np.float32(wab * (pc if m else one - pc))
                            for k in range(LANES):
                                back[k] += weight * grid[a + i, b + j, c + m, channel, k]
                total = np.float32(0)
                for k in range(LANES):
                    total += back[k] * product[k]
                filtered[y, x, channel] += total
