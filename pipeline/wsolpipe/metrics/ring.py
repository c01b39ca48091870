"""What the eight pixels around a pixel say about it: tables over 8-bit masks of the neighbours already present.

Pixels enter a superlevel set in falling order of value, in raster order within a value. When a pixel enters, the
neighbours already present tell whether it starts a region, joins one, joins several, which sides of a box it may push,
and by how much it grows the area within the polygon through pixel centres (``cv2.contourArea``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import uint8, uint16, uintp

from wsolpipe.maps.compilation import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
"""(dy, dx) of bit 0 to bit 7: clockwise from north-west."""

LEFT, RIGHT, TOP, BOTTOM = 1, 2, 4, 8

# Which member of a group is asked for the group's label: best one that entered with a higher value (east to
# south-west), last the one that entered just before (west), so that a row of labels is no chain of waits.
_ASKED = (3, 4, 5, 6, 1, 2, 0, 7)


class Tables(NamedTuple):
    """What to do with an entering pixel, by the mask of the neighbours present before it.

    Parameters
    ----------
    groups : uint8 [256]
        Number of groups of neighbours of its kind that are present.
    member : uint8 [256, 4]
        One neighbour (bit) of each group.
    sides : uint8 [256]
        Sides of its region's box that the pixel may push: no present neighbour of its kind is as far out.
    """

    groups: NDArray[np.uint8]
    member: NDArray[np.uint8]
    sides: NDArray[np.uint8]


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


def _sides(present: set[int]) -> int:
    offsets = [NEIGHBOURS[bit] for bit in present]
    return (
        LEFT * all(x > 0 for _, x in offsets)
        | RIGHT * all(x < 0 for _, x in offsets)
        | TOP * all(y > 0 for y, _ in offsets)
        | BOTTOM * all(y < 0 for y, _ in offsets)
    )


def _tables(*, background: bool) -> Tables:
    count, sides = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    member = np.zeros((256, 4), np.uint8)
    for mask in range(256):
        present = {bit for bit in range(8) if (mask >> bit & 1) != background}
        groups = _groups(present, diagonal=not background)
        count[mask] = len(groups)
        for number, group in enumerate(groups):
            legal = [bit for bit in _ASKED if bit in group and (bit % 2 or not background)]
            member[mask, number] = legal[0]
        sides[mask] = _sides(set().union(*groups))
    return Tables(count, member, sides)


def _gain(mask: int) -> int:
    corners = ((7, 0, 1), (1, 2, 3), (3, 4, 5), (5, 6, 7))
    return sum(sum(mask >> bit & 1 for bit in corner) >= 2 for corner in corners)


REGION = _tables(background=False)
"""Regions of a superlevel set, 8-connected: pixels enter in falling order."""
HOLE = _tables(background=True)
"""Regions of its complement, 4-connected: pixels enter in the reverse order, so present is what the mask lacks."""
GAIN = np.array([_gain(mask) for mask in range(256)], dtype=np.uint8)
"""Twice the polygon area gained: each 2 x 2 block counts one half from its third pixel and one half from its fourth."""


@compiled
def ring_codes(values: NDArray[np.uint8], codes: NDArray[np.uint16]) -> None:
    """Write what the ring of each pixel inside the frame says (``values`` uint8 [P, Q], ``codes`` uint16 [P, Q]).

    The low byte is the mask of the neighbours that enter before the pixel. The high byte names the sides of its
    region's box that the pixel may push once its *whole level* has entered: where an equal neighbour is farther out,
    that one will push, and of equal neighbours in one line the first does. Few pixels are left that push at all.
    """
    one = uintp(1)
    width = uintp(values.shape[1] - 1)
    masks, pushes = np.zeros(values.shape[1], np.uint8), np.zeros(values.shape[1], np.uint8)
    for row in range(1, values.shape[0] - 1):
        y = uintp(row)
        n, s = y - one, y + one
        for x in range(one, width):
            w, e = x - one, x + one
            here = values[y, x]
            masks[x] = (
                uint8(values[n, w] >= here)
                | uint8(uint8(values[n, x] >= here) << uint8(1))
                | uint8(uint8(values[n, e] >= here) << uint8(2))
                | uint8(uint8(values[y, e] > here) << uint8(3))
                | uint8(uint8(values[s, e] > here) << uint8(4))
                | uint8(uint8(values[s, x] > here) << uint8(5))
                | uint8(uint8(values[s, w] > here) << uint8(6))
                | uint8(uint8(values[y, w] >= here) << uint8(7))
            )
        for x in range(one, width):
            w, e = x - one, x + one
            here = values[y, x]
            west = max(max(values[n, w], values[y, w]), values[s, w])
            east = max(max(values[n, e], values[y, e]), values[s, e])
            north = max(max(values[n, w], values[n, x]), values[n, e])
            south = max(max(values[s, w], values[s, x]), values[s, e])
            pushes[x] = (
                uint8(uint8(max(west, values[n, x]) < here) & uint8(values[s, x] <= here))
                | uint8((uint8(max(east, values[n, x]) < here) & uint8(values[s, x] <= here)) << uint8(1))
                | uint8((uint8(max(north, values[y, w]) < here) & uint8(values[y, e] <= here)) << uint8(2))
                | uint8((uint8(max(south, values[y, w]) < here) & uint8(values[y, e] <= here)) << uint8(3))
            )
        for x in range(one, width):
            codes[y, x] = uint16(masks[x]) | uint16(uint16(pushes[x]) << uint16(8))
