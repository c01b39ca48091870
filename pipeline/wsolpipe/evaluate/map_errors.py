"""Errors of localization by kind, at every threshold: LPE, LME and MIE (TS-CAM, Gao et al., ICCV 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.metrics.localization import NAMED, OUTCOMES, outcomes_of
from wsolpipe.metrics.maxbox import largest_boxes
from wsolpipe.metrics.pixels import nearest_threshold
from wsolpipe.metrics.scaling import standard_boxes

if TYPE_CHECKING:
    from wsolpipe.evaluate.frame import FramedBatch
    from wsolpipe.evaluate.truth import Truth

THRESHOLDS = 100


class ErrorDissection:
    """Outcome of each row's largest box, by the rules of `wsolpipe.metrics.localization`, at 100 thresholds.

    Boxes are those of the standard evaluator. The class counts as wrong where predictions are known and the label is
    not the first of them.
    """

    def __init__(self) -> None:
        self.counts = np.zeros((len(OUTCOMES), THRESHOLDS), np.int64)

    def add(self, batch: FramedBatch, truth: Truth) -> None:
        """Count a batch of maps; a missing one counts as an empty box."""
        for place, (score, row) in enumerate(zip(batch.framed, batch.rows, strict=True)):
            boxes = truth.boxes(int(row))
            if not len(boxes) or batch.objectless[place]:
                continue
            first = None if batch.predicted is None else batch.predicted[place].ravel()[0]
            if first is not None and batch.labels[place] >= 0 and first != batch.labels[place]:
                self.counts[OUTCOMES.index("wrong class")] += 1
                continue
            own = np.zeros((THRESHOLDS, 4)) if score is None else largest_boxes(score, thresholds=THRESHOLDS)
            width, height = truth.rows.sizes[int(row)]
            side = 224 if score is None else len(score)
            outcomes = outcomes_of(own, standard_boxes(boxes, (int(width), int(height)), side=side))
            np.add.at(self.counts, (outcomes, np.arange(THRESHOLDS)), 1)

    def result(self, tau: float | None) -> dict[str, Any]:
        """Shares of all scored rows at `tau`, else at the threshold that leaves most rows right; None without rows."""
        rows = int(self.counts[:, 0].sum())
        if not rows:
            return {"errors": None}
        right = self.counts[OUTCOMES.index("right")]
        place = int(right.argmax()) if tau is None else nearest_threshold(tau, THRESHOLDS)
        shares = {name: float(count) / rows for name, count in zip(OUTCOMES, self.counts[:, place], strict=True)}
        return {"errors": {**shares, **{name: shares[outcome] for name, outcome in NAMED.items()}}}
