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
from wsolpipe.metrics.regions import by_falling_value, differing, enter, root, steps
from wsolpipe.metrics.ring import GAIN, HOLE, REGION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsolpipe.metrics.ring import Tables

    Bytes = NDArray[np.uint8]
    Codes = NDArray[np.uint16]
    Floats = NDArray[np.float64]
    Indices = NDArray[np.int32]
    Ints = NDArray[np.int64]


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
def _raise_by(
    values: Bytes,
    bound: Bytes,
    codes: Codes,
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
    found, n = differing(values, bound)
    if n == 0:
        return
    order, start = by_falling_value(values, found, n)
    offsets, copies = steps(tables, values.shape[1])
    ring, limit = codes.ravel(), bound.ravel()
    label = np.empty(values.size, np.int32)
    parent, box = np.zeros(n + 1, np.int32), np.empty((n + 1, 4), np.int32)
    ends, iou, stale = np.empty(n + 1, np.uint8), np.empty(n + 1), np.zeros(n + 1, np.bool_)
    alive, living = np.empty(n + 1, np.int32), 0
    for turn in range(255):
        value = turn if rising else 255 - turn
        first, stop = start[value], start[value - 1] if value else n
        for k in range(first, stop):
            p = order[first + stop - 1 - k if rising else k]
            code = ring[uintp(p)]
            mask = code & 255
            sides = int(tables.sides[mask]) if rising else int(code >> 8)
            copy = copies[mask]
            if copy != 0 and sides == 0:
                label[uintp(p)] = label[uintp(p + copy)]
                continue
            region = enter(p, mask, sides, tables, offsets, label, parent, box)
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
    values: Bytes, level: Bytes, codes: Codes, best: Floats, clip: Ints, truth: Floats, unit: float
) -> None:
    """Raise ``best`` [256] at each cut to the best IoU of the regions that are apart from the main one there.

    Parameters
    ----------
    values, level : uint8 [P, Q], framed
        The map and its ``main_level``.
    codes : uint16 [P, Q]
        The map's ``ring_codes``.
    clip : int64 [2]
        Largest far edges (x, y).
    truth : float64 [M, 4]
    unit : 1.0 or 0.0
        1.0 counts both edges of a box as pixels.
    """
    _raise_by(values, level, codes, REGION, False, best, clip, truth, unit)


def raise_by_holes(
    values: Bytes, roof: Bytes, codes: Codes, best: Floats, clip: Ints, truth: Floats, unit: float
) -> None:
    """Raise ``best`` [256] at each cut to the best IoU of the hole contours there; ``roof`` is the map ``filled``."""
    _raise_by(values, roof, codes, HOLE, True, best, clip, truth, unit)


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
def main_areas(level: Bytes, codes: Codes, areas: Ints) -> None:
    """Write twice the main region's polygon area at each cut into ``areas`` int64 [256]."""
    # Neighbouring pixels often share a value: turns between four histograms keep additions from waiting for each other.
    gains = np.zeros((4, 256), np.int64)
    flat, ring = level.ravel(), codes.ravel()
    for p in range(0, flat.size - 3, 4):
        gains[0, flat[p]] += GAIN[ring[p] & 255]
        gains[1, flat[p + 1]] += GAIN[ring[p + 1] & 255]
        gains[2, flat[p + 2]] += GAIN[ring[p + 2] & 255]
        gains[3, flat[p + 3]] += GAIN[ring[p + 3] & 255]
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
    values: Bytes, level: Bytes, codes: Codes, tables: Tables, areas: Ints, clip: Ints, boxes: Indices
) -> None:
    """Do the work of ``take_larger_islands``."""
    found, n = differing(values, level)
    if n == 0:
        return
    order, start = by_falling_value(values, found, n)
    ring, sunk = codes.ravel(), level.ravel()
    offsets, copies = steps(tables, values.shape[1])
    label = np.empty(values.size, np.int32)
    parent, box = np.zeros(n + 1, np.int32), np.empty((n + 1, 4), np.int32)
    floor, area, first = np.empty(n + 1, np.uint8), np.zeros(n + 1, np.int64), np.empty(n + 1, np.int32)
    alive, living = np.empty(n + 1, np.int32), 0
    for value in range(255, 0, -1):
        for k in range(start[value], start[value - 1]):
            p = order[k]
            code = ring[uintp(p)]
            mask, sides = code & 255, int(code >> 8)
            copy = copies[mask]
            if copy != 0 and sides == 0:
                region = root(parent, label[uintp(p + copy)])
                label[uintp(p)] = region
            else:
                region = abs(enter(p, mask, sides, tables, offsets, label, parent, box))
                if mask == 0:
                    floor[region], first[region] = sunk[p], p
                    alive[living] = region
                    living += 1
            area[region] += GAIN[mask]
            first[region] = min(first[region], p)
        cut, kept, chosen = value - 1, 0, 0
        for k in range(living):
            region = alive[k]
            top = root(parent, region)
            if top != region:
                # What a joined region brought along is handed to its root once, at the end of the level.
                area[top] += area[region]
                first[top] = min(first[top], first[region])
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
    codes: Codes,
    areas: Ints,
    clip: Ints,
    boxes: Indices,
) -> None:
    """Replace the main region's box by an island's at each cut where the island is the largest contour.

    Parameters
    ----------
    values, level : uint8 [P, Q], framed
        The hole-filled map and its ``main_level``.
    codes : uint16 [P, Q]
        The ``ring_codes`` of the hole-filled map.
    areas : int64 [256]
        Twice the main region's polygon area at each cut.
    clip : int64 [2]
        Largest far edges (x, y).
    boxes : int32 [256, 4]
        The main region's boxes, changed in place.
    """
    _take_larger(values, level, codes, REGION, areas, clip, boxes)


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
