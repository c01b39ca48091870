"""Several trained localizers on the same rows: figures with intervals, paired tests, and the maps of some rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.evaluate.bootstrap import box_values, intervals_of, map_values, paired_tests
from wsolpipe.evaluate.frame import Frame
from wsolpipe.evaluate.map_scores import score_against
from wsolpipe.evaluate.otsu_scores import OtsuScores, otsu_box
from wsolpipe.metrics import Convention, largest_box
from wsoltrain.training.annotators import CLS
from wsoltrain.training.evaluation import NetworkMaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from wsolpipe.evaluate.bootstrap import Values
    from wsolpipe.evaluate.box_scores import BoxScores
    from wsolpipe.evaluate.map_scores import MapScores
    from wsolpipe.evaluate.map_sources import MapBatch
    from wsolpipe.evaluate.truth import Truth
    from wsoltrain.methods.base import Method
    from wsoltrain.training.evaluation import Evaluator

Array = np.ndarray[Any, Any]
SHOWN = Convention("half-open", eight_bit=True, inclusive=False, clip=False, holes=False)
"""Thresholds as the evaluation cuts, boxes half-open: what is drawn."""
FIGURES = ("MaxBoxAcc", "iou", "PxAP", "pixel_iou")


@dataclass(frozen=True)
class Shown:
    """Map of a row in the evaluator's frame, float [S, S] in 0..1, and its box xyxy there, None where it is empty."""

    map: Array
    box: Array | None


@dataclass(frozen=True)
class Compared:
    """One method on a split.

    Attributes
    ----------
    name : str
        Of the recipe.
    by : str
        What chose epoch and threshold.
    tau : float or None
        Threshold chosen on validation.
    scores : MapScores
        With what single rows add.
    own : BoxScores or None
        Of boxes at each map's own Otsu threshold, where accuracy chose the epoch and nothing a threshold.
    shown : dict of int to Shown
        By row.
    """

    name: str
    by: str
    tau: float | None
    scores: MapScores
    own: BoxScores | None = None
    shown: dict[int, Shown] = field(default_factory=dict)

    def line(self, first: Compared) -> dict[str, Any]:
        """Figures, intervals, and the paired test against the first method (None for that one itself)."""
        found = self.scores.result(self.tau)
        figures = {name: found[name] for name in FIGURES} | {"MaxBoxAccV2": found["MaxBoxAccV2"]["mean"]}
        if self.own is not None:
            figures |= {name: float(each.mean()) for name, (_, each) in self.values().items()}
        tests = None if first is self else paired_tests(self.values(), first.values())
        about = {"name": self.name, "by": self.by, "tau": self.tau, "oracle": self.tau is None and self.own is None}
        return {**about, **figures, "intervals": intervals_of(self.values()), "against_first": tests}

    def values(self) -> Values:
        """What single rows add to each figure."""
        return map_values(self.scores, self.tau) if self.own is None else box_values(self.own)


class _Watched(NetworkMaps):
    """Keeps the maps of some rows as they pass."""

    def __init__(self, *given: Any, rows: frozenset[int]) -> None:
        super().__init__(*given)
        self.rows, self.seen = rows, dict[int, Array]()

    def batches(self) -> Iterator[MapBatch]:
        for batch in super().batches():
            for row, raw in zip(batch.rows.tolist(), batch.maps, strict=True):
                if row in self.rows and raw is not None:
                    self.seen[row] = raw
            yield batch


def score_method(
    name: str,
    model: Method[Any],
    tau: float | None,
    evaluator: Evaluator,
    device: torch.device,
    rows: Sequence[int] = (),
    *,
    by: str = "",
    details: bool = False,
) -> Compared:
    """Score a method against the evaluator's only truth, with all metrics or the main ones; keep maps of some rows.

    `by` chose epoch and threshold; ``cls`` has none, so that boxes are those of each map's own Otsu threshold.
    """
    source = _Watched(model, evaluator.stream, device, name, rows=frozenset(rows))
    frame = Frame(side=model.frame_side, normalise=not source.has_unit_maps())
    (truth,) = evaluator.truths.values()
    at_otsu = by == CLS and tau is None and bool(truth.found)
    more = None if details else ("otsu",) if at_otsu else ()
    (scores,) = score_against(source, evaluator.truths, frame, keep=True, details=details, more=more).values()
    own = scores.more.get("otsu") if at_otsu else None
    if isinstance(own, OtsuScores):
        shown = {row: show(raw, frame, None) for row, raw in source.seen.items()}
        return Compared(name, by, tau, scores, own.scores(scores.quarantined), shown)
    cut = scores.best_tau() if tau is None else tau
    shown = {row: show(raw, frame, cut) for row, raw in source.seen.items()}
    return Compared(name, by, tau, scores, None, shown)


def show(raw: Array, frame: Frame, tau: float | None) -> Shown:
    """A map in the frame and its box at a threshold; at the map's own, by Otsu, where that is None."""
    framed = frame.map(raw, "a row")
    if tau is None:
        found = otsu_box(raw, frame.side, frame.side)
        return Shown(framed, found[0] if len(found) else None)
    box = largest_box(np.clip(framed, 0, 1), tau, convention=SHOWN)
    return Shown(framed, box if box[2] > box[0] and box[3] > box[1] else None)


def pick_rows(truth: Truth, count: int) -> list[int]:
    """Rows with a box or mask, evenly over the split."""
    known = {row for row in truth.found if len(truth.boxes(row))} | truth.masks.keys()
    rows = sorted(row for row in known if not truth.rows.quarantined[row])
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
    return [rows[place] for place in places]
