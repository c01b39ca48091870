"""The threshold sweep as one incremental algorithm: contour boxes of a map at all of its at most 255 distinct cuts.

An 8-bit map has at most 255 different superlevel sets ``{value > cut}``; a thousand thresholds only repeat them. Their
contours need no tracing either:

1. Outer contours are the 8-connected regions, hole contours the 4-connected pieces of the complement that do not reach
   the outside; a hole's box is its own grown by one pixel.
2. A flood from the highest pixel (`wsolpipe.metrics.flood`) gives up to which cut each pixel belongs to the *main*
   region. The main region's box at every cut is read off the row and column maxima of that flood.
3. What is above its flood level is an *island* there. Only island pixels are sorted and joined one by one (union-find),
   and only where the neighbours already present (``ring_codes``) show that something changes.
4. Likewise a flood of the complement from the outside gives the hole-filled map; only what is below it is ever a hole.
5. The largest contour is decided by polygon area, which on the hole-filled map grows by a table entry a pixel.

The result equals tracing every cut with OpenCV (``findContours``, ``contourArea``), ties included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import int32, int64, uintp

from wsolpipe.maps.compilation import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsolpipe.metrics.rings import Main, Steps, Truth

    Bytes = NDArray[np.uint8]
    Codes = NDArray[np.uint16]
    Floats = NDArray[np.float64]
    Indices = NDArray[np.int32]
    Ints = NDArray[np.int64]


# -- regions that grow pixel by pixel: lists of pixels in order, union-find with boxes -------------------------------


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
def _count_values(values: Bytes, found: Indices, n: int) -> tuple[Ints, Ints]:
    """Return where the values of the first n pixels of a list begin in falling order, and that of four stretches.

    ``start[v]`` [256] is the place of the first pixel of value v, and so the number of those above v; ``start[v - 1]``
    is one past the last. ``places`` [4, 256] is the same for each fourth of the list, for `_by_falling_value`.
    """
    flat = values.ravel()
    start = np.empty(256, np.int64)
    # Four stretches of the list at a time: neighbours share values, and a single counter would be a chain of waits.
    places = np.zeros((4, 256), np.int64)
    stretch = uintp(n // 4)
    for k in range(stretch):
        for part in range(uintp(4)):
            places[part, flat[uintp(found[k + part * stretch])]] += 1
    for k in range(4 * stretch, uintp(n)):
        places[3, flat[uintp(found[k])]] += 1
    total = 0
    for value in range(255, -1, -1):
        start[value] = total
        for part in range(4):
            here = places[part, value]
            places[part, value] = total
            total += here
    return start, places


@compiled
def _by_falling_value(values: Bytes, codes: Codes, found: Indices, n: int, places: Ints) -> Ints:
    """Sort the first n pixels of a list by falling value, raster order within; each as ``pixel << 16 | code``.

    The loops over them then read codes in order, not from all over the map.
    """
    flat, ring = values.ravel(), codes.ravel()
    order = np.empty(n, np.int64)
    stretch = uintp(n // 4)
    for k in range(stretch):
        for part in range(uintp(4)):
            p = uintp(found[k + part * stretch])
            place = places[part, flat[p]]
            order[uintp(place)] = int64(p) << int64(16) | int64(ring[p])
            places[part, flat[p]] = place + 1
    for k in range(4 * stretch, uintp(n)):
        p = uintp(found[k])
        place = places[3, flat[p]]
        order[uintp(place)] = int64(p) << int64(16) | int64(ring[p])
        places[3, flat[p]] = place + 1
    return order


@compiled
def _root(parent: Indices, member: int) -> int:
    """Return the root of a region; its path is halved on the way."""
    label = int(member)
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = int(parent[label])
    return label


@compiled
def _push(box: Indices, label: int, x0: int, y0: int, x1: int, y1: int) -> bool:
    """Let a box push the sides of a region's; return whether one moved. No branches, which could not be foreseen."""
    left, top, right, low = box[label, 0], box[label, 1], box[label, 2], box[label, 3]
    box[label, 0], box[label, 1] = min(left, x0), min(top, y0)
    box[label, 2], box[label, 3] = max(right, x1), max(low, y1)
    return bool((x0 < left) | (y0 < top) | (x1 > right) | (y1 > low))


@compiled
def _enter(p: int, mask: int, groups: Ints, stride: int, label: Indices, parent: Indices, box: Indices) -> int:
    """Add pixel p, which starts, joins or pushes a region; return the root it is in, negative if no box changed.

    ``parent[0]`` counts the regions made.
    """
    row = np.uint32(p) // np.uint32(stride)
    y, x = int(row) - 1, int(p - row * stride) - 1
    count = groups[mask, 0]
    if count == 0:
        parent[0] += 1
        here = int(parent[0])
        parent[here] = here
        box[here, 0] = box[here, 2] = x
        box[here, 1] = box[here, 3] = y
        label[p] = here
        return here
    changed = False
    here = _root(parent, label[p + groups[mask, 1]])
    for number in range(2, count + 1):
        other = _root(parent, label[p + groups[mask, number]])
        if other != here:  # joined under the older one
            here, other = min(here, other), max(here, other)
            parent[other] = here
            _push(box, here, box[other, 0], box[other, 1], box[other, 2], box[other, 3])
            changed = True
    label[p] = here
    changed |= _push(box, here, x, y, x, y)
    return here if changed else -here


# -- the sweep --------------------------------------------------------------------------------------------------------


@compiled
def best_iou_of(x0: float, y0: float, x1: float, y1: float, truth: Truth, own: int) -> float:
    """Return the best IoU of a box with those of one set."""
    boxes, unit = truth.boxes, truth.unit
    area = (x1 - x0 + unit) * (y1 - y0 + unit)
    best = 0.0
    for k in range(truth.starts[own], truth.starts[own + 1]):
        wide = min(x1, boxes[k, 2]) - max(x0, boxes[k, 0]) + unit
        high = min(y1, boxes[k, 3]) - max(y0, boxes[k, 1]) + unit
        if wide > 0 and high > 0:
            overlap = wide * high
            union = area + (boxes[k, 2] - boxes[k, 0] + unit) * (boxes[k, 3] - boxes[k, 1] + unit) - overlap
            best = max(best, overlap / union)
    return best


@compiled
def iou_by_cut(boxes: Indices, peak: int, truth: Truth) -> Floats:
    """Return the best IoU float64 [A, 256] with each set of the box at each cut below ``peak``; 0 from there on."""
    best = np.zeros((truth.starts.size - 1, 256))
    for own in range(len(best)):
        for cut in range(peak):
            best[own, cut] = best_iou_of(boxes[cut, 0], boxes[cut, 1], boxes[cut, 2], boxes[cut, 3], truth, own)
    return best


@compiled
def raise_by(
    values: Bytes, bound: Bytes, codes: Codes, around: Steps, rising: bool, truth: Truth, best: Floats
) -> None:
    """Raise ``best`` [A, 256] at each cut to the best IoU of the regions of pixels where ``values``, ``bound`` differ.

    Islands of the superlevel set enter by falling value and live at the cuts from their bound to their highest value;
    holes, regions of its complement, enter by rising value and live at the cuts below their bound, their boxes one
    pixel wider.

    Parameters
    ----------
    values, bound : uint8 [P, Q], framed
        The map, and its ``main_level`` for islands or the map ``filled`` for holes.
    codes : uint16 [P, Q]
        The map's ``ring_codes``.
    around : Steps
        Of regions, or of holes.
    rising : bool
        Whether the regions are holes.
    """
    found, n = _differing(values, bound)
    if n == 0:
        return
    start, places = _count_values(values, found, n)
    order = _by_falling_value(values, codes, found, n, places)
    limit, sets, clip = bound.ravel(), best.shape[0], truth.clip
    (copies, groups), stride, label = around, values.shape[1], np.empty(values.size, np.int32)
    parent, box = np.zeros(n + 1, np.int32), np.empty((n + 1, 4), np.int32)
    ends, iou, stale = np.empty(n + 1, np.uint8), np.empty((sets, n + 1)), np.zeros(n + 1, np.bool_)
    alive, living = np.empty(n + 1, np.int32), 0
    for turn in range(255):
        value = turn if rising else 255 - turn
        first, stop = start[value], start[value - 1] if value else n
        for k in range(first, stop):
            entry = order[first + stop - 1 - k if rising else k]
            p, mask = int32(entry >> 16), entry & 255
            copy = copies[entry & 511]
            if copy != 0:
                label[uintp(p)] = label[uintp(p + copy)]
                continue
            region = _enter(p, mask, groups, stride, label, parent, box)
            if region > 0:
                stale[region] = True
                if groups[mask, 0] == 0:
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
                    x1, y1 = box[region, 2] + 1 + rising, box[region, 3] + 1 + rising
                    for own in range(sets):
                        iou[own, region] = best_iou_of(x0, y0, min(x1, clip[0]), min(y1, clip[1]), truth, own)
                    stale[region] = False
        living = kept
        for own in range(sets):
            highest = best[own, cut]
            for k in range(living):
                highest = max(highest, iou[own, alive[k]])
            best[own, cut] = highest


@compiled
def _first_above(level: Bytes, cut: int, row: int) -> int:
    """Return the first pixel above a cut, which is in the named row of the frame."""
    flat = level.ravel()
    p = row * level.shape[1]
    while flat[p] <= cut:
        p += 1
    return int(p)


@compiled
def _largest(
    parent: Indices, floor: Bytes, area: Ints, first: Indices, alive: Indices, living: int, cut: int
) -> tuple[int, int]:
    """Return how many regions still live at a cut, kept in ``alive``, and the one of the largest area, 0 for none."""
    kept, chosen = 0, 0
    for k in range(living):
        region = alive[k]
        top = _root(parent, region)
        if top != region:
            # What a joined region brought along is handed to its root once, at the end of the level.
            area[top] += area[region]
            first[top] = min(first[top], first[region])
        elif floor[region] <= cut:
            alive[kept] = region
            kept += 1
    for k in range(kept):
        region = alive[k]
        larger = area[region] - area[chosen]
        # On equal areas OpenCV's first wins, and it lists the region whose first raster pixel comes last before others.
        if chosen == 0 or larger > 0 or (larger == 0 and first[region] > first[chosen]):
            chosen = region
    return kept, chosen


@compiled
def take_larger_islands(values: Bytes, codes: Codes, main: Main, around: Steps, gain: Bytes) -> None:
    """Replace the main region's box by an island's at each cut where the island is the largest contour.

    Parameters
    ----------
    values : uint8 [P, Q], framed
        The hole-filled map.
    codes : uint16 [P, Q]
        Its ``ring_codes``.
    main : Main
        Its boxes are changed in place.
    around : Steps
        Of regions, whose first pixels copy no label.
    gain : uint8 [256]
        Twice the polygon area gained, by mask.
    """
    found, n = _differing(values, main.level)
    start, places = _count_values(values, found, n)
    # A region of k pixels has less than 2 k of twice the area, so at most cuts no island can be larger.
    lowest = 0
    while lowest < 255 and 2 * start[lowest] <= main.areas[lowest]:
        lowest += 1
    if lowest == 255:
        return
    order = _by_falling_value(values, codes, found, n, places)
    sunk, stride = main.level.ravel(), values.shape[1]
    (copies, groups), label = around, np.empty(sunk.size, np.int32)
    parent, box = np.zeros(n + 1, np.int32), np.empty((n + 1, 4), np.int32)
    floor, area, first = np.empty(n + 1, np.uint8), np.zeros(n + 1, np.int64), np.empty(n + 1, np.int32)
    alive, living = np.empty(n + 1, np.int32), 0
    for cut in range(254, lowest - 1, -1):
        for k in range(start[cut + 1], start[cut]):
            entry = order[k]
            p, mask = int32(entry >> 16), entry & 255
            copy = copies[entry & 511]
            if copy != 0:
                region = _root(parent, label[uintp(p + copy)])
                label[uintp(p)] = region
            else:
                region = abs(_enter(p, mask, groups, stride, label, parent, box))
                if mask == 0:
                    floor[region], first[region] = sunk[p], p
                    alive[living] = region
                    living += 1
                first[region] = min(first[region], p)
            area[region] += gain[mask]
        living, chosen = _largest(parent, floor, area, first, alive, living, cut)
        larger = area[chosen] - main.areas[cut]
        if chosen and (
            larger > 0 or (larger == 0 and first[chosen] > _first_above(main.level, cut, main.boxes[cut, 1] + 1))
        ):
            main.boxes[cut, 0], main.boxes[cut, 1] = box[chosen, 0], box[chosen, 1]
            main.boxes[cut, 2] = min(box[chosen, 2] + 1, main.clip[0])
            main.boxes[cut, 3] = min(box[chosen, 3] + 1, main.clip[1])
