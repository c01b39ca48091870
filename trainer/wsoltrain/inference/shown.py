"""Maps and boxes of some rows, kept while a localizer is scored, for pages that show them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wsoltrain.inference.localizer import find_region

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.evaluate.figures import Frame
    from wsolpipe.evaluate.map_scores import MapScores
    from wsolpipe.evaluate.scored import Scored
    from wsolpipe.evaluate.truth import Truth

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Shown:
    """Map of a row in the evaluator's frame, float [S, S] in 0..1, and its box xyxy there, None where it is empty."""

    map: Array
    box: Array | None


@dataclass(frozen=True)
class Compared:
    """One localizer on a split.

    Attributes
    ----------
    name : str
        Of the recipe.
    by : str
        What chose epoch and threshold.
    scored : Scored
        With what single rows add.
    shown : mapping of int to Shown
        By row.
    """

    name: str
    by: str
    scored: Scored
    shown: Mapping[int, Shown] = field(default_factory=dict)

    @property
    def scores(self) -> MapScores:
        """Counts of its maps at every threshold."""
        assert self.scored.maps is not None
        return self.scored.maps


def show(raw: Array, frame: Frame, tau: float | None) -> Shown:
    """Return a map in the frame and its box at a threshold; at the map's own, by Otsu, where that is None."""
    framed = frame.map(raw, "a row")
    region = find_region(raw, framed, (frame.side, frame.side), tau)
    return Shown(framed, None if region is None else region[0])


def pick_rows(truth: Truth, count: int) -> list[int]:
    """Return rows with a box or mask, evenly over the split."""
    known = {row for row in truth.found if len(truth.boxes(row))} | truth.masks.keys()
    rows = sorted(row for row in known if not truth.rows.quarantined[row])
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
    return [rows[place] for place in places]
