"""Regions that grow pixel by pixel: lists of pixels in order, union-find with boxes.

The loops of ``sweep`` are compiled with these inside: numba notices a change of its own file only, so after changing
this module or ``ring`` touch ``sweep.py`` too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.maps.compilation import compiled
from wsolpipe.metrics.ring import BOTTOM, LEFT, NEIGHBOURS, RIGHT, TOP

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsolpipe.metrics.ring import Tables

    Bytes = NDArray[np.uint8]
    Indices = NDArray[np.int32]
    Ints = NDArray[np.int64]


@compiled
def differing(values: Bytes, other: Bytes) -> tuple[Indices, int]:
    """List the pixels where two maps differ, in raster order; return the list's room and its length."""
    width = values.shape[1]
    mine, theirs = values.view(np.uint64), other.view(np.uint64)
    found = np.empty(values.size, np.int32)
    n = 0
    for y in range(mine.shape[0]):
        for word in range(mine.shape[1]):
            if mine[y, word] != theirs[y, word]:
                for x in range(8 * word, 8 * word + 8):
                    found[n] = y * width + x
                    n += values[y, x] != other[y, x]
    return found, n


@compiled
def by_falling_value(values: Bytes, found: Indices, n: int) -> tuple[Indices, Ints]:
    """Sort the first n pixels of a list by falling value, raster order within; return them and where values start.

    ``start[v]`` is the place of the first pixel of value v, ``start[v - 1]`` one past the last.
    """
    flat = values.ravel()
    order, start = np.empty(n, np.int32), np.empty(256, np.int64)
    # Four stretches of the list at a time: neighbours share values, and a single counter would be a chain of waits.
    counts = np.zeros((4, 256), np.int64)
    stretch = (n + 3) // 4
    for k in range(stretch):
        for part in range(4):
            if k + part * stretch < n:
                counts[part, flat[found[k + part * stretch]]] += 1
    total = 0
    for value in range(255, -1, -1):
        start[value] = total
        for part in range(4):
            here = counts[part, value]
            counts[part, value] = total
            total += here
    for k in range(stretch):
        for part in range(4):
            if k + part * stretch < n:
                p = found[k + part * stretch]
                order[counts[part, flat[p]]] = p
                counts[part, flat[p]] += 1
    return order, start


@compiled
def root(parent: Indices, member: int) -> int:
    label = int(member)
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = int(parent[label])
    return label


@compiled
def push(box: Indices, label: int, x: int, y: int, sides: int) -> bool:
    """Let a pixel push the named sides of a box; say whether one moved."""
    pushed = False
    if sides & LEFT and x < box[label, 0]:
        box[label, 0] = x
        pushed = True
    if sides & TOP and y < box[label, 1]:
        box[label, 1] = y
        pushed = True
    if sides & RIGHT and x > box[label, 2]:
        box[label, 2] = x
        pushed = True
    if sides & BOTTOM and y > box[label, 3]:
        box[label, 3] = y
        pushed = True
    return pushed


@compiled
def start(parent: Indices, box: Indices, x: int, y: int) -> int:
    """Make a region of one pixel; ``parent[0]`` counts the regions made."""
    parent[0] += 1
    label = int(parent[0])
    parent[label] = label
    box[label, 0] = box[label, 2] = x
    box[label, 1] = box[label, 3] = y
    return label


@compiled
def join(parent: Indices, box: Indices, a: int, b: int) -> int:
    """Join two roots under the older one; return it."""
    if b < a:
        a, b = b, a
    parent[b] = a
    box[a, 0] = min(box[a, 0], box[b, 0])
    box[a, 1] = min(box[a, 1], box[b, 1])
    box[a, 2] = max(box[a, 2], box[b, 2])
    box[a, 3] = max(box[a, 3], box[b, 3])
    return a


@compiled
def enter(
    p: int, mask: int, sides: int, tables: Tables, offsets: Ints, label: Indices, parent: Indices, box: Indices
) -> int:
    """Add pixel p, which starts, joins or pushes a region; return the root it is in, negative if no box changed."""
    stride = offsets[5]
    row = np.uint32(p) // np.uint32(stride)
    y, x = int(row) - 1, int(p - row * stride) - 1
    count = tables.groups[mask]
    if count == 0:
        here = start(parent, box, x, y)
        label[p] = here
        return here
    changed = False
    here = root(parent, label[p + offsets[tables.member[mask, 0]]])
    for number in range(1, count):
        other = root(parent, label[p + offsets[tables.member[mask, number]]])
        if other != here:
            here = join(parent, box, here, other)
            changed = True
    label[p] = here
    if push(box, here, x, y, sides):
        changed = True
    return here if changed else -here


@compiled
def steps(tables: Tables, stride: int) -> tuple[Ints, Ints]:
    """Return the offsets [8] of the neighbours, and by mask [256] that of the one to copy a label from, 0 for none.

    Only where the neighbours are one group: if the pixel pushes no side either, as most do not, nothing else changes.
    """
    offsets, copies = np.empty(8, np.int64), np.zeros(256, np.int64)
    for bit in range(8):
        offsets[bit] = NEIGHBOURS[bit][0] * stride + NEIGHBOURS[bit][1]
    for mask in range(256):
        if tables.groups[mask] == 1:
            copies[mask] = offsets[tables.member[mask, 0]]
    return offsets, copies
