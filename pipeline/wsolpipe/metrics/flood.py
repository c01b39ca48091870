"""Flooding of 8-bit maps: how high each pixel is joined to a source.

``flood`` is the morphological reconstruction by dilation of a marker under a limit (Vincent, "Morphological grayscale
reconstruction in image analysis", IEEE TIP 1993): the largest image that grows from the marker without rising above the
limit. At every cut c, ``{level > c}`` is then the part of ``{limit > c}`` that is connected to the marker.

Two of its answers carry the threshold sweep: from the highest pixel it separates the main object from islands, and on
the complement, from the outside, it separates holes from background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import uintp

from wsolpipe.maps.compilation import compiled

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

# Vector sweeps settle smooth maps in two to six rounds; what is left after these goes through the queue,
# whose cost is bounded whatever the map.
ROUNDS = 8


@compiled
def _sweep(limit: Bytes, level: Bytes, downward: bool, eight: bool) -> bool:
    """Raise each row from its neighbour row above (downward) or below; say whether any pixel rose.

    Unsigned indices spare the test for negative ones, and rows of their own for the neighbours' maximum and for the
    changes spare an alias test and a reduction a row: the inner loops become plain vector code.
    """
    one = uintp(1)
    rows, width = level.shape[0] - 2, uintp(level.shape[1])
    reach = np.zeros(level.shape[1], np.uint8)
    changes = np.zeros(level.shape[1], np.uint8)
    for step in range(rows):
        y = uintp(step + 1 if downward else rows - step)
        z = uintp(step if downward else rows - step + 1)
        if eight:
            for x in range(one, width - one):
                reach[x] = max(max(level[z, x - one], level[z, x]), level[z, x + one])
        else:
            for x in range(one, width - one):
                reach[x] = level[z, x]
        for x in range(width):
            old = level[y, x]
            new = min(limit[y, x], max(reach[x], old))
            level[y, x] = new
            changes[x] |= new ^ old
    return bool(changes.any())


@compiled
def _swap_bits(low: Any, high: Any, shift: Any, mask: Any) -> tuple[Any, Any]:
    moved = ((low >> shift) ^ high) & mask
    return low ^ (moved << shift), high ^ moved


@compiled
def _transpose(source: Bytes, target: Bytes) -> None:
    """Write the transpose of a uint8 map whose sides are multiples of 8, eight by eight bytes in registers."""
    s1, s2, s4 = np.uint64(8), np.uint64(16), np.uint64(32)
    m1, m2, m4 = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF), np.uint64(0x00000000FFFFFFFF)
    a, b = source.view(np.uint64), target.view(np.uint64)
    for j in range(a.shape[0] // 8):
        y = 8 * j
        for i in range(a.shape[1]):
            r0, r1, r2, r3 = a[y, i], a[y + 1, i], a[y + 2, i], a[y + 3, i]
            r4, r5, r6, r7 = a[y + 4, i], a[y + 5, i], a[y + 6, i], a[y + 7, i]
            r0, r1 = _swap_bits(r0, r1, s1, m1)
            r2, r3 = _swap_bits(r2, r3, s1, m1)
            r4, r5 = _swap_bits(r4, r5, s1, m1)
            r6, r7 = _swap_bits(r6, r7, s1, m1)
            r0, r2 = _swap_bits(r0, r2, s2, m2)
            r1, r3 = _swap_bits(r1, r3, s2, m2)
            r4, r6 = _swap_bits(r4, r6, s2, m2)
            r5, r7 = _swap_bits(r5, r7, s2, m2)
            r0, r4 = _swap_bits(r0, r4, s4, m4)
            r1, r5 = _swap_bits(r1, r5, s4, m4)
            r2, r6 = _swap_bits(r2, r6, s4, m4)
            r3, r7 = _swap_bits(r3, r7, s4, m4)
            x = 8 * i
            b[x, j], b[x + 1, j], b[x + 2, j], b[x + 3, j] = r0, r1, r2, r3
            b[x + 4, j], b[x + 5, j], b[x + 6, j], b[x + 7, j] = r4, r5, r6, r7


@compiled
def _settle(limit: Bytes, level: Bytes, eight: bool) -> None:
    """Finish a flood from any lower bound of it: highest sources first, so that each pixel rises at most once."""
    height, width = limit.shape
    size = height * width
    offsets = np.array([-width, -1, 1, width, -width - 1, -width + 1, width - 1, width + 1])
    if not eight:
        offsets = offsets[:4]
    top, flow = limit.ravel(), level.ravel()
    # Buckets by level as linked lists. A pixel enters at most twice: as a source found here (node p), and when it rises
    # (node p + size): sources leave in falling order, so the first rise of a pixel is its last.
    head = np.full(256, -1, np.int64)
    follow = np.empty(2 * size, np.int64)
    for y in range(1, height - 1):
        for p in range(y * width + 1, y * width + width - 1):
            for offset in offsets:
                q = p + offset
                if flow[q] < min(flow[p], top[q]):
                    follow[p], head[flow[p]] = head[flow[p]], p
                    break
    for value in range(255, 0, -1):
        while head[value] >= 0:
            node = head[value]
            head[value] = follow[node]
            p = node if node < size else node - size
            for offset in offsets:
                q = p + offset
                new = min(flow[p], top[q])
                if new > flow[q]:
                    flow[q] = new
                    if new > 0 and q // width % (height - 1) and q % width % (width - 1):
                        follow[q + size], head[new] = head[new], q + size


@compiled
def flood(limit: Bytes, level: Bytes, eight: bool) -> None:
    """Raise ``level`` in place to its reconstruction under ``limit``.

    Parameters
    ----------
    limit, level : uint8 [P, Q], contiguous
        Sides multiples of 8. The outermost rows and columns are a frame: they act as sources but never rise.
        ``level`` <= ``limit`` holds the marker.
    eight : bool
        Neighbours are all eight pixels around (True) or the four beside (False).
    """
    limit_t = np.empty((limit.shape[1], limit.shape[0]), np.uint8)
    level_t = np.empty_like(limit_t)
    _transpose(limit, limit_t)
    # One sweep is stable against its own repetition, so four directions in a row without a change are a fixed point.
    quiet = 0
    for turn in range(2 * ROUNDS):
        if turn % 2:
            _transpose(level, level_t)
        elif turn:
            _transpose(level_t, level)
        for downward in (True, False):
            here, top = (level_t, limit_t) if turn % 2 else (level, limit)
            changed = _sweep(top, here, downward, eight)
            quiet = 1 if changed else quiet + 1
            if quiet >= 4:
                if turn % 2:
                    _transpose(level_t, level)
                return
    _transpose(level_t, level)
    _settle(limit, level, eight)
