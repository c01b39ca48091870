"""Parts of the threshold sweep: the ring of a pixel, the main region, boxes to be held against.

The ring are the eight neighbours of a pixel, and what they show when it enters a superlevel set.

Pixels enter in falling order of value, in raster order within a value. When a pixel enters, the neighbours already
present show whether it starts a region, joins one, joins several, whether it may push a side of a box, and by how much
it grows the area within the polygon through pixel centres (``cv2.contourArea``).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Floats = NDArray[np.float64]
    Indices = NDArray[np.int32]
    Ints = NDArray[np.int64]

#: (dy, dx) of bit 0 to bit 7: clockwise from north-west.
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))

#: The neighbours that come before a pixel in raster order.
BEFORE = 0b10000111

# Which member of a group gives the group's label: best one that entered with a higher value (east to
# south-west), last the one that entered just before (west), so that a row of labels is not a chain of waits.
_ASKED = (3, 4, 5, 6, 1, 2, 0, 7)


class Tables(NamedTuple):
    """Decide what to do with an entering pixel, by the mask of the neighbours present before it.

    Parameters
    ----------
    groups : uint8 [256]
        Number of groups of neighbours of its kind that are present.
    member : uint8 [256, 4]
        One neighbour (bit) of each group.
    pushes : bool [256]
        Whether the pixel may push a side of its region's box: no present neighbour of its kind is as far out.
    """

    groups: NDArray[np.uint8]
    member: NDArray[np.uint8]
    pushes: NDArray[np.bool_]


class Truth(NamedTuple):
    """Sets of boxes that one map is held against.

    Parameters
    ----------
    boxes : float64 [M, 4]
        Of A sets, one after another.
    starts : int64 [A + 1]
        Where each set begins, and the end.
    unit : float
        1.0 counts both edges of a box as pixels, 0.0 not.
    clip : int64 [2]
        Largest far edges (x, y) of the map's boxes.
    """

    boxes: Floats
    starts: Ints
    unit: float
    clip: Ints


class Main(NamedTuple):
    """The main region of a map at each cut.

    Parameters
    ----------
    level : uint8 [P, Q]
        The map's ``main_level``.
    areas : int64 [256]
        Twice its polygon area.
    boxes : int32 [256, 4]
        Far edges clipped.
    clip : int64 [2]
        Largest far edges (x, y).
    """

    level: Bytes
    areas: Ints
    boxes: Indices
    clip: Ints


def _groups(present: set[int], *, diagonal: bool) -> list[set[int]]:
    """Return the connected groups of neighbours, the pixel itself taken out."""

    def touch(a: int, b: int) -> bool:
        dy, dx = (abs(one - two) for one, two in zip(NEIGHBOURS[a], NEIGHBOURS[b], strict=True))
        return max(dy, dx) == 1 if diagonal else dy + dx == 1

    left, groups = set(present), []
    while left:
        group = {left.pop()}
        while more := {bit for bit in left if any(touch(bit, member) for member in group)}:
            group |= more
            left -= more
        groups.append(group)
    # Without diagonals, a group that touches the pixel only at its corner is not joined to it.
    return groups if diagonal else [group for group in groups if any(bit % 2 for bit in group)]


def _pushes(present: set[int]) -> bool:
    offsets = [NEIGHBOURS[bit] for bit in present]
    across, down = [x for _, x in offsets], [y for y, _ in offsets]
    return min(across, default=1) > 0 or max(across, default=-1) < 0 or min(down) > 0 or max(down) < 0


def _tables(*, background: bool) -> Tables:
    count, pushes = np.zeros(256, np.uint8), np.zeros(256, np.bool_)
    member = np.zeros((256, 4), np.uint8)
    for mask in range(256):
        present = {bit for bit in range(8) if (mask >> bit & 1) != background}
        groups = _groups(present, diagonal=not background)
        count[mask] = len(groups)
        for number, group in enumerate(groups):
            legal = [bit for bit in _ASKED if bit in group and (bit % 2 or not background)]
            member[mask, number] = legal[0]
        pushes[mask] = _pushes(set().union(*groups))
    return Tables(count, member, pushes)


def _gain(mask: int) -> int:
    corners = ((7, 0, 1), (1, 2, 3), (3, 4, 5), (5, 6, 7))
    return sum(sum(mask >> bit & 1 for bit in corner) >= 2 for corner in corners)


#: Regions of a superlevel set, 8-connected: pixels enter in falling order.
REGION = _tables(background=False)
#: Regions of its complement, 4-connected: pixels enter in the reverse order, so present is what the mask lacks.
HOLE = _tables(background=True)
#: Twice the polygon area gained: each 2 x 2 block counts one half from its third pixel and one half from its fourth.
GAIN = np.array([_gain(mask) for mask in range(256)], dtype=np.uint8)


class Steps(NamedTuple):
    """Where to go from a pixel of one map.

    Parameters
    ----------
    copies : int64 [512]
        By code (see ``ring_codes``), the way to the neighbour to copy a label from, 0 for none.
    groups : int64 [256, 5]
        By mask, the number of groups of neighbours of its kind, and the ways to one neighbour of each.
    """

    copies: Ints
    groups: Ints


@lru_cache(maxsize=64)
def steps(kind: Literal["region", "hole", "first"], stride: int) -> Steps:
    """Where to go from a pixel of a map whose rows are `stride` apart.

    A label is copied only where the neighbours are one group and the pixel pushes no side: then, as for most, nothing
    else changes. With ``first`` a pixel that may be its region's first in raster order copies none either.
    """
    tables, codes = HOLE if kind == "hole" else REGION, np.arange(512)
    mask, offsets = codes & 255, np.array([dy * stride + dx for dy, dx in NEIGHBOURS])
    pushes = tables.pushes[mask] if kind == "hole" else codes > 255
    alone = (tables.groups[mask] == 1) & ~pushes & ((kind != "first") | (codes & BEFORE > 0))
    ways = offsets[tables.member]
    groups = np.concatenate([tables.groups[:, None].astype(np.int64), ways], axis=1)
    return Steps(np.where(alone, ways[mask, 0], 0), groups)
