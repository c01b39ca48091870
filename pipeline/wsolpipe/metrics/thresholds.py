"""Choose a threshold, and say how much a curve of pseudo-boxes can tell: plateaus, ties, saturation.

A curve holds one score a threshold. Where several thresholds are equally good, the first of them is the edge of a
plateau, off which a small shift between splits falls; its middle is the farthest from both edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

WIDE = 0.25
"""Share of all thresholds from which on a plateau is reported as flat."""
FULL = 99.0
"""Per cent from which on a score is reported as saturated."""


def plateau(curve: ArrayLike, *, tolerance: float = 0.0) -> tuple[int, int]:
    """Return the longest run of thresholds within `tolerance` of the best score, as its first and last place.

    Of runs of equal length the first counts.

    Parameters
    ----------
    curve : float [T]
        Score at each threshold.
    tolerance : float
        In units of the curve; 0 for the best score alone.

    Examples
    --------
    >>> plateau([1, 3, 3, 3, 2, 3])
    (1, 3)
    """
    values = np.asarray(curve, dtype=np.float64)
    good = values >= values.max() - tolerance
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(np.int8)))
    starts, stops = edges[::2], edges[1::2]
    longest = int((stops - starts).argmax())
    return int(starts[longest]), int(stops[longest]) - 1


def middle(curve: ArrayLike) -> int:
    """Return the place in the middle of the best score's longest plateau, the lower one of two."""
    first, last = plateau(curve)
    return (first + last) // 2


def describe_plateau(curve: ArrayLike) -> str | None:
    """Return a sentence about a plateau that covers at least `WIDE` of all thresholds, None for a narrower one."""
    values = np.asarray(curve, dtype=np.float64)
    first, last = plateau(values)
    if last - first + 1 < WIDE * len(values):
        return None
    low, high = first / len(values), last / len(values)
    return f"flat curve: every threshold from {low:.3f} to {high:.3f} scores the same; its middle is taken"
