"""The two compiled loops over pixels of the CRF filter, which `wsoltrain.losses.crf` explains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types, uintp
from numba.extending import intrinsic

from wsolpipe.maps.compilation import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

#: Spatial products that are in the grid at once: one vector register.
#: The only definition: the compiled code is cached by the text of this file and would keep a number from another one.
LANES = 8


@intrinsic  # type: ignore[untyped-decorator]
def _add_lanes(_context: Any, target: Any, at: Any, weight: Any, source: Any, start: Any) -> Any:
    """``target[at + k] += weight * source[start + k]`` for the lanes k, of float32 arrays [n], as one vector.

    By default the compiler unrolls the lanes and computes them one by one.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        vector, word = ir.VectorType(ir.FloatType(), LANES), ir.IntType(32)

        def place(array: Any, index: Any, kind: Any) -> Any:
            data = context.make_array(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

        to = place(values[0], values[1], signature.args[0])
        read = builder.load(place(values[3], values[4], signature.args[3]), align=4)
        single = builder.insert_element(ir.Constant(vector, ir.Undefined), values[2], ir.Constant(word, 0))
        first = ir.Constant(ir.VectorType(word, LANES), [0] * LANES)
        spread = builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), first)
        builder.store(builder.fadd(builder.load(to, align=4), builder.fmul(spread, read)), to, align=4)
        return context.get_dummy_value()

    return types.void(target, at, weight, source, start), generate


@compiled
def _corner_weights(cell: Floats, weights: Floats) -> None:
    """Write the trilinear weights [8] of the cells around a colour float32 [3], the last axis fastest."""
    one = np.float32(1)
    pa, pb, pc = cell[0] - int(cell[0]), cell[1] - int(cell[1]), cell[2] - int(cell[2])
    for i in range(2):
        wa = np.float32(pa if i else one - pa)
        for j in range(2):
            wab = np.float32(wa * (pb if j else one - pb))
            for m in range(2):
                weights[4 * i + 2 * j + m] = np.float32(wab * (pc if m else one - pc))


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
    n1, n2, lanes = uintp(grid.shape[1]), uintp(grid.shape[2]), uintp(LANES)
    flat = grid.reshape(-1)
    product, weights = np.empty(LANES, np.float32), np.empty(8, np.float32)
    for y in range(height):
        for x in range(width):
            for k in range(LANES):
                product[k] = down[y, k] * across[x, k]
            _corner_weights(cells[y, x], weights)
            first = (uintp(cells[y, x, 0]) * n1 + uintp(cells[y, x, 1])) * n2 + uintp(cells[y, x, 2])
            for corner in range(uintp(8)):
                i, j, m = corner >> uintp(2), corner >> uintp(1) & uintp(1), corner & uintp(1)
                cell = (first + (i * n1 + j) * n2 + m) * uintp(channels)
                for channel in range(uintp(channels)):
                    value = np.float32(weights[corner] * pixels[y, x, channel])
                    _add_lanes(flat, (cell + channel) * lanes, value, product, uintp(0))


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
    n1, n2, lanes = uintp(grid.shape[1]), uintp(grid.shape[2]), uintp(LANES)
    flat = grid.reshape(-1)
    weights, back = np.empty(8, np.float32), np.empty(LANES, np.float32)
    for y in range(height):
        for x in range(width):
            _corner_weights(cells[y, x], weights)
            first = (uintp(cells[y, x, 0]) * n1 + uintp(cells[y, x, 1])) * n2 + uintp(cells[y, x, 2])
            for channel in range(uintp(channels)):
                back[:] = 0
                for corner in range(uintp(8)):
                    i, j, m = corner >> uintp(2), corner >> uintp(1) & uintp(1), corner & uintp(1)
                    cell = (first + (i * n1 + j) * n2 + m) * uintp(channels)
                    _add_lanes(back, uintp(0), weights[corner], flat, (cell + channel) * lanes)
                total = np.float32(0)
                for k in range(LANES):
                    total += back[k] * np.float32(down[y, k] * across[x, k])
                filtered[y, x, channel] += total
