"""The threshold sweep as one incremental algorithm: contour boxes of a map at all of its at most 255 distinct cuts.

An 8-bit map has at most 255 different superlevel sets ``{value > cut}``; a thousand thresholds only repeat them. Their
contours need no tracing either:

1. Outer contours are the 8-connected regions, hole contours the 4-connected pieces of the complement that do not reach
   the outside; a hole's box is its own grown by one pixel.
2. A flood from the highest pixel (``flood``) says up to which cut each pixel belongs to the *main* region. The main
   region's box at every cut is read off the row and column maxima of that flood.
3. What is above its flood level is an *island* there. Only island pixels are sorted and joined one by one (union-find),
   and only where the neighbours already present (``ring``) say that something changes.
4. Likewise a flood of the complement from the outside gives the hole-filled map; only what is below it is ever a hole.
5. The largest contour is decided by polygon area, which on the hole-filled map grows by a table entry a pixel.

The result equals tracing every cut with OpenCV (``findContours``, ``contourArea``), ties included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import uint8, uintp

from wsolpipe.maps.compilation import compiled
from wsolpipe.metrics.flood import flood
from wsolpipe.metrics.ring import BOTTOM, GAIN, HOLE, LEFT, NEIGHBOURS, REGION, RIGHT, TOP

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsolpipe.metrics.ring import Tables

    Bytes = NDArray[np.uint8]
    Floats = NDArray[np.float64]
    Indices = NDArray[np.int32]
    Ints = NDArray[np.int64]


@compiled
def _differing(values: Bytes, other: Bytes) -> tuple[Indices, int]:
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
def _sorted(values: Bytes, found: Indices, n: int) -> tuple[Indices, Ints]:
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
def _root(parent: Indices, member: int) -> int:
    label = int(member)
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = int(parent[label])
    return label


@compiled
def best_iou_of(x0: float, y0: float, x1: float, y1: float, truth: Floats, unit: float) -> float:
    """Return the best IoU of a box over ``truth`` float64 [M, 4]; ``unit`` 1.0 counts both edges as pixels, 0.0 not."""
    area = (x1 - x0 + unit) * (y1 - y0 + unit)
    best = 0.0
    for k in range(truth.shape[0]):
        wide = min(x1, truth[k, 2]) - max(x0, truth[k, 0]) + unit
        high = min(y1, truth[k, 3]) - max(y0, truth[k, 1]) + unit
        if wide > 0 and high > 0:
            overlap = wide * high
            union = area + (truth[k, 2] - truth[k, 0] + unit) * (truth[k, 3] - truth[k, 1] + unit) - overlap
            best = max(best, overlap / union)
    return best


@compiled
def _push(box: Indices, label: int, x: int, y: int, sides: int) -> bool:
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
def _start(parent: Indices, box: Indices, x: int, y: int) -> int:
    """Make a region of one pixel; ``parent[0]`` counts the regions made."""
    parent[0] += 1
    label = int(parent[0])
    parent[label] = label
    box[label, 0] = box[label, 2] = x
    box[label, 1] = box[label, 3] = y
    return label


@compiled
def _join(parent: Indices, box: Indices, a: int, b: int) -> int:
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
def _enter(p: int, mask: int, tables: Tables, offsets: Ints, label: Indices, parent: Indices, box: Indices) -> int:
    """Add pixel p, which starts, joins or pushes a region; return the root it is in, negative if no box changed."""
    stride = offsets[5]
    row = np.uint32(p) // np.uint32(stride)
    y, x = int(row) - 1, int(p - row * stride) - 1
    count = tables.groups[mask]
    if count == 0:
        here = _start(parent, box, x, y)
        label[p] = here
        return here
    changed = False
    here = _root(parent, label[p + offsets[tables.member[mask, 0]]])
    for number in range(1, count):
        other = _root(parent, label[p + offsets[tables.member[mask, number]]])
        if other != here:
            here = _join(parent, box, here, other)
            changed = True
    label[p] = here
    if _push(box, here, x, y, tables.sides[mask]):
        changed = True
    return here if changed else -here


@compiled
def _steps(tables: Tables, stride: int) -> tuple[Ints, Ints]:
    """Return the offsets [8] of the neighbours, and by mask [256] that of the one to copy a label from, 0 for none.

    Most pixels change nothing: one group of neighbours, and one of them as far out on every side.
    """
    offsets, copies = np.empty(8, np.int64), np.zeros(256, np.int64)
    for bit in range(8):
        offsets[bit] = NEIGHBOURS[bit][0] * stride + NEIGHBOURS[bit][1]
    for mask in range(256):
        if tables.groups[mask] == 1 and tables.sides[mask] == 0:
            copies[mask] = offsets[tables.member[mask, 0]]
    return offsets, copies


@compiled
def _raise_by(
    values: Bytes,
    bound: Bytes,
    masks: Bytes,
    tables: Tables,
    rising: bool,
    best: Floats,
    clip: Ints,
    truth: Floats,
    unit: float,
) -> None:
    """Raise ``best`` [256] at each cut to the best IoU of the regions of pixels where ``values`` and ``bound`` differ.

    Regions of the superlevel set enter by falling value and live at the cuts from their bound to their highest value;
    regions of its complement enter by rising value and live at the cuts below their bound, their boxes one pixel wider.
    """
    found, n = _differing(values, bound)
    if n == 0:
        return
    order, start = _sorted(values, found, n)
    offsets, copies = _steps(tables, values.shape[1])
    ring, limit = masks.ravel(), bound.ravel()
    label = np.empty(values.size, np.int32)
    parent, box = np.zeros(n + 1, np.int32), np.empty((n + 1, 4), np.int32)
    ends, iou, stale = np.empty(n + 1, np.uint8), np.empty(n + 1), np.zeros(n + 1, np.bool_)
    alive, living = np.empty(n + 1, np.int32), 0
    for turn in range(255):
        value = turn if rising else 255 - turn
        first, stop = start[value], start[value - 1] if value else n
        for k in range(first, stop):
            p = order[first + stop - 1 - k if rising else k]
            mask = ring[uintp(p)]
            copy = copies[mask]
            if copy != 0:
                label[uintp(p)] = label[uintp(p + copy)]
                continue
            region = _enter(p, mask, tables, offsets, label, parent, box)
            if region > 0:
                stale[region] = True
                if tables.groups[mask] == 0:
                    ends[region] = limit[p]
                    alive[living] = region
                    living += 1
        # Boxes are read only when a level is complete: in between they belong to no superlevel set.
        cut, kept = value if rising else value - 1, 0
        for k in range(living):
            region = alive[k]
            if parent[region] == region and (ends[region] > cut) == rising:
                alive[kept] = region
                kept += 1
                if stale[region]:
                    x0, y0 = box[region, 0] - rising, box[region, 1] - rising
                    x1, y1 = min(box[region, 2] + 1 + rising, clip[0]), min(box[region, 3] + 1 + rising, clip[1])
                    iou[region] = best_iou_of(x0, y0, x1, y1, truth, unit)
                    stale[region] = False
                best[cut] = max(best[cut], iou[region])
        living = kept


def raise_by_islands(
    values: Bytes, level: Bytes, masks: Bytes, best: Floats, clip: Ints, truth: Floats, unit: float
) -> None:
    """Raise ``best`` [256] at each cut to the best IoU of the regions that are apart from the main one there.

    Parameters
    ----------
    values, level, masks : uint8 [P, Q], framed
        The map, its ``main_level`` and its ``ring_masks``.
    clip : int64 [2]
        Largest far edges (x, y).
    truth : float64 [M, 4]
    unit : 1.0 or 0.0
        1.0 counts both edges of a box as pixels.
    """
    _raise_by(values, level, masks, REGION, False, best, clip, truth, unit)


def raise_by_holes(
    values: Bytes, roof: Bytes, masks: Bytes, best: Floats, clip: Ints, truth: Floats, unit: float
) -> None:
    """Raise ``best`` [256] at each cut to the best IoU of the hole contours there; ``roof`` is the map ``filled``."""
    _raise_by(values, roof, masks, HOLE, True, best, clip, truth, unit)


@compiled
def main_boxes(level: Bytes, peak: int, clip: Ints, boxes: Indices) -> None:
    """Write the main region's box at each cut below ``peak`` into ``boxes`` int32 [256, 4], far edges clipped."""
    one = uintp(1)
    across, down = np.zeros(level.shape[1], np.uint8), np.zeros(level.shape[0], np.uint8)
    for y in range(one, uintp(level.shape[0])):
        highest = uint8(0)
        for x in range(uintp(level.shape[1])):
            highest = max(highest, level[y, x])
        down[y] = highest
        for x in range(uintp(level.shape[1])):
            across[x] = max(across[x], level[y, x])
    left, top, right, low = 0, 0, level.shape[1] - 1, level.shape[0] - 1
    for cut in range(peak):
        while across[left] <= cut:
            left += 1
        while across[right] <= cut:
            right -= 1
        while down[top] <= cut:
            top += 1
        while down[low] <= cut:
            low -= 1
        # The frame is one pixel wide, so a far edge in frame coordinates is already one past the pixel.
        boxes[cut, 0], boxes[cut, 1] = left - 1, top - 1
        boxes[cut, 2], boxes[cut, 3] = min(right, clip[0]), min(low, clip[1])


@compiled
def main_areas(level: Bytes, masks: Bytes, areas: Ints) -> None:
    """Write twice the main region's polygon area at each cut into ``areas`` int64 [256]."""
    # Neighbouring pixels often share a value: turns between four histograms keep additions from waiting for each other.
    gains = np.zeros((4, 256), np.int64)
    flat, ring = level.ravel(), masks.ravel()
    for p in range(0, flat.size - 3, 4):
        gains[0, flat[p]] += GAIN[ring[p]]
        gains[1, flat[p + 1]] += GAIN[ring[p + 1]]
        gains[2, flat[p + 2]] += GAIN[ring[p + 2]]
        gains[3, flat[p + 3]] += GAIN[ring[p + 3]]
    total = 0
    for cut in range(254, -1, -1):
        total += gains[0, cut + 1] + gains[1, cut + 1] + gains[2, cut + 1] + gains[3, cut + 1]
        areas[cut] = total


@compiled
def _first_above(level: Bytes, cut: int, row: int) -> int:
    """Return the first pixel above a cut, which is in the named row of the frame."""
    flat = level.ravel()
    p = row * level.shape[1]
    while flat[p] <= cut:
        p += 1
    return int(p)


@compiled
def _take_larger(
    values: Bytes, level: Bytes, masks: Bytes, tables: Tables, areas: Ints, clip: Ints, boxes: Indices
) -> None:
    """Do the work of ``take_larger_islands``."""
    found, n = _differing(values, level)
    if n == 0:
        return
    order, start = _sorted(values, found, n)
    ring, sunk = masks.ravel(), level.ravel()
    offsets, copies = _steps(tables, values.shape[1])
    label = np.empty(values.size, np.int32)
    parent, box = np.zeros(n + 1, np.int32), np.empty((n + 1, 4), np.int32)
    floor, area, first = np.empty(n + 1, np.uint8), np.zeros(n + 1, np.int64), np.empty(n + 1, np.int32)
    alive, living = np.empty(n + 1, np.int32), 0
    for value in range(255, 0, -1):
        for k in range(start[value], start[value - 1]):
            p = order[k]
            mask = ring[uintp(p)]
            copy = copies[mask]
            if copy != 0:
                region = _root(parent, label[uintp(p + copy)])
                label[uintp(p)] = region
            else:
                region = abs(_enter(p, mask, tables, offsets, label, parent, box))
                if mask == 0:
                    floor[region], first[region] = sunk[p], p
                    alive[living] = region
                    living += 1
            area[region] += GAIN[mask]
            first[region] = min(first[region], p)
        cut, kept, chosen = value - 1, 0, 0
        for k in range(living):
            region = alive[k]
            root = _root(parent, region)
            if root != region:
                # What a joined region brought along is handed to its root once, at the end of the level.
                area[root] += area[region]
                first[root] = min(first[root], first[region])
            elif floor[region] <= cut:
                alive[kept] = region
                kept += 1
        living = kept
        for k in range(living):
            region = alive[k]
            if (
                chosen == 0
                or area[region] > area[chosen]
                or area[region] == area[chosen]
                and first[region] > first[chosen]
            ):
                chosen = region
        # On equal areas OpenCV's first wins, and it lists the region whose first raster pixel comes last before others.
        if chosen and (
            area[chosen] > areas[cut]
            or (area[chosen] == areas[cut] and first[chosen] > _first_above(level, cut, boxes[cut, 1] + 1))
        ):
            boxes[cut, 0], boxes[cut, 1] = box[chosen, 0], box[chosen, 1]
            boxes[cut, 2], boxes[cut, 3] = min(box[chosen, 2] + 1, clip[0]), min(box[chosen, 3] + 1, clip[1])


def take_larger_islands(
    values: Bytes,
    level: Bytes,
    masks: Bytes,
    areas: Ints,
    clip: Ints,
    boxes: Indices,
) -> None:
    """Replace the main region's box by an island's at each cut where the island is the largest contour.

    Parameters
    ----------
    values, level, masks : uint8 [P, Q], framed
        The hole-filled map, its ``main_level`` and its ``ring_masks``.
    areas : int64 [256]
        Twice the main region's polygon area at each cut.
    clip : int64 [2]
        Largest far edges (x, y).
    boxes : int32 [256, 4]
        The main region's boxes, changed in place.
    """
    _take_larger(values, level, masks, REGION, areas, clip, boxes)


@compiled
def iou_by_cut(boxes: Indices, peak: int, truth: Floats, unit: float) -> Floats:
    """Return the best IoU float64 [256] of the box at each cut below ``peak``; 0 from there on."""
    best = np.zeros(256)
    for cut in range(peak):
        best[cut] = best_iou_of(boxes[cut, 0], boxes[cut, 1], boxes[cut, 2], boxes[cut, 3], truth, unit)
    return best


@compiled
def quantised(score: Floats) -> tuple[Bytes, bool]:
    """Return ``trunc(255 * score)`` of a map float64 [H, W], framed, and whether all of it was in [0, 1]."""
    height, width = uintp(score.shape[0]), uintp(score.shape[1])
    one = uintp(1)
    values = np.zeros(((score.shape[0] + 9) // 8 * 8, (score.shape[1] + 9) // 8 * 8), np.uint8)
    wrong = 0
    for y in range(height):
        for x in range(width):
            wrong |= not (0.0 <= score[y, x] <= 1.0)
            values[y + one, x + one] = np.uint8(np.int32(score[y, x] * 255.0))
    return values, wrong == 0


def framed(values: Bytes) -> Bytes:
    """Return a map [H, W] with a frame of zeros, at least one pixel wide, its sides multiples of 8."""
    height, width = values.shape
    frame = np.zeros(((height + 9) // 8 * 8, (width + 9) // 8 * 8), np.uint8)
    frame[1 : height + 1, 1 : width + 1] = values
    return frame


def main_level(values: Bytes) -> Bytes:
    """Return up to which cut each pixel of a framed map is joined to the (first) highest pixel."""
    level = np.zeros_like(values)
    seed = int(values.argmax())
    level.flat[seed] = values.flat[seed]
    flood(values, level, True)
    return level


def filled(values: Bytes) -> Bytes:
    """Return a framed map with its holes filled: background joins the outside through the four sides of a pixel."""
    limit = ~values
    level = np.zeros_like(values)
    level[0], level[-1], level[:, 0], level[:, -1] = 255, 255, 255, 255
    flood(limit, level, False)
    return np.asarray(~level)
