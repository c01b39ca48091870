"""Rows of a group in the order of their frames, for both halves: the frames beside each frame of a video."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def beside(groups: NDArray[np.int64], frames: NDArray[np.int64], before: int, after: int) -> NDArray[np.int64]:
    """Rows of the frames beside each row, wherever in the index they are.

    Parameters
    ----------
    groups, frames : int64 [N]
        Group of each row, −1 for plain images, and position in it.
    before, after : int
        Frames on either side, of the same group: the next that are listed, whatever their numbers.

    Returns
    -------
    int64 [N, before + after]
        Row numbers, earliest first; −1 past the ends of a group.
    """
    order = np.lexsort((frames, groups))
    steps = [*range(-before, 0), *range(1, after + 1)]
    found = np.full((len(groups), len(steps)), -1, np.int64)
    for column, step in enumerate(steps):
        near = np.arange(len(order)) + step
        there = (near >= 0) & (near < len(order))
        other = order[np.where(there, near, 0)]
        same = there & (groups[order] == groups[other]) & (groups[order] >= 0)
        found[order, column] = np.where(same, other, -1)
    return found
