"""Selection of an image's pseudo-box from many: a share by score, the pointing game, the best remaining box.

The steps of the realistic protocol's annotator (validation boxes without annotation). Boxes are float [B, 4], xyxy,
half-open, in pixels of the image, in the order in which their proposer gave them; ties go to the earlier one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsolpipe.contract.schema import Fallback, Step
from wsolpipe.maps.levels import peak
from wsolpipe.maps.resize import upsample

Order = Literal["filter-first", "pointing-first"]


@dataclass(frozen=True)
class Shortlist:
    """Boxes of one image after the steps that need no further score.

    Attributes
    ----------
    steps : uint8 array [B]
        `Step` of each box; finalists are those that remain.
    fallback : Fallback
    """

    steps: NDArray[np.uint8]
    fallback: Fallback

    def finalists(self) -> NDArray[np.int64]:
        """Positions of the remaining boxes; at least one if there are boxes."""
        return np.flatnonzero(self.steps & Step.FINALIST)


def shortlist(
    boxes: NDArray[Any],
    scores: NDArray[Any],
    peak: NDArray[Any] | None,
    *,
    keep: float,
    order: Order,
    enough: NDArray[np.bool_] | None = None,
) -> Shortlist:
    """Keep a share of the boxes by score and those that hold the peak, in either order.

    Parameters
    ----------
    boxes : float array [B, 4]
    scores : float array [B]
        Of the first step.
    peak : float array [2] or None
        (x, y); None if there is none; then every box counts as holding it.
    keep : float
        Share of the boxes kept by score, rounded up.
    order : "filter-first" or "pointing-first"
        Whether the share is taken of all boxes or of those that hold the peak.
    enough : bool array [B], optional
        Boxes whose objectness reaches the floor; no other takes part, and the share is counted as if all did.

    Returns
    -------
    Shortlist
        If no remaining box holds the peak, the pointing game is skipped; so is the floor where no box reaches it.
        Scores that are all zero keep the order in which boxes came.
    """
    steps = np.zeros(len(boxes), np.uint8)
    if not len(boxes):
        return Shortlist(steps, Fallback.NO_REGION)
    fallback = Fallback(0) if np.any(scores > 0) else Fallback.NO_SCORE
    pointed = np.ones(len(boxes), bool) if peak is None else holds(boxes, peak)
    fallback |= Fallback.NO_PEAK if peak is None else Fallback(0)
    everything = np.ones(len(boxes), bool)
    allowed = everything if enough is None or not enough.any() else enough
    fallback |= Fallback(0) if enough is None or enough.any() else Fallback.BELOW_FLOOR
    if order == "filter-first":
        top = highest(scores, allowed, keep, everything)
        left = top & pointed
        fallback |= Fallback(0) if left.any() else Fallback.PEAK_OUTSIDE
        left = left if left.any() else top
    else:
        held = (pointed & allowed).any()
        fallback |= Fallback(0) if held else Fallback.PEAK_OUTSIDE
        pool = pointed if held else everything
        top = left = highest(scores, pool & allowed, keep, pool)
    for step, passed in ((Step.TOP, top), (Step.POINTED, pointed), (Step.FINALIST, left)):
        steps[passed] |= np.uint8(step)
    return Shortlist(steps, fallback)


def highest(scores: NDArray[Any], among: NDArray[np.bool_], share: float, of: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the best of the boxes that `among` [B] marks: a `share`, rounded up, of the number of `of`."""
    positions = np.flatnonzero(among)
    count = max(1, int(np.ceil(share * int(of.sum()) - 1e-9)))
    marked = np.zeros(len(among), bool)
    marked[positions[np.argsort(-scores[positions], kind="stable")[:count]]] = True
    return marked


def holds(boxes: NDArray[Any], point: NDArray[Any]) -> NDArray[np.bool_]:
    """Which boxes [B, 4] hold a point (x, y): the pointing game (Zhang et al., IJCV 2018, section 4.1)."""
    x, y = point
    inside = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
    return np.asarray(inside, bool)


def best_finalist(found: Shortlist, final: NDArray[Any], first: NDArray[Any]) -> tuple[int, Fallback]:
    """Position of the finalist with the greatest `final` score [B]; by the `first` score [B] where all are zero."""
    left = found.finalists()
    if np.any(final[left] > 0):
        return int(left[np.argmax(final[left])]), Fallback(0)
    return int(left[np.argmax(first[left])]), Fallback.NO_SCORE


def map_peak(levels: NDArray[Any], size: tuple[int, int], *, side: int = 224) -> NDArray[np.float64] | None:
    """Position of the peak of a map, in pixels of its image.

    Parameters
    ----------
    levels : uint8 or float array [h, w]
        A map; stretched bilinearly to `side` first, as evaluators do.
    size : (height, width)
        Of the image.

    Returns
    -------
    float64 array [2] or None
        (x, y) of the centre of the highest pixel, the first of equals; None for a constant map.
    """
    large = upsample(np.asarray(levels, np.float32), (side, side))
    return None if large.max() <= large.min() else peak(large) * size[::-1] / side
