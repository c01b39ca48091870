"""Quality of validation pseudo-boxes after each step of their choice (thesis table 4.5)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.schema import Fallback, Status, Step
from wsolpipe.evaluate.box_scores import score_boxes
from wsolpipe.metrics.boxes import best_iou, iou_per_box

if TYPE_CHECKING:
    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.box_scores import BoxScores
    from wsolpipe.evaluate.truth import Truth

Array = np.ndarray[Any, Any]
ARRAYS = ("boxes", "top_box", "candidates", "steps", "peak", "fallback")
#: Steps whose estimator is the mean over the boxes that are left: name -> bits that a box must have.
MEANS = {
    "iou_pointing_mean_of_boxes": Step.POINTED,
    "iou_top_mean_of_boxes": Step.TOP,
    "iou_top_pointing_mean_of_boxes": Step.TOP | Step.POINTED,
}


def is_val_boxes(view: StageView) -> bool:
    """Whether a stage keeps the steps of its choice."""
    return set(ARRAYS) <= set(view.manifest.arrays)


def score_val_boxes(view: StageView, truth: Truth) -> BoxScores:
    """Figures of every step, then those of any stage of boxes.

    Each key says its estimator. ``…_mean_of_boxes``: mean IoU of a row's boxes that are left, then over the rows that
    have any (``rows_…`` of them); ``…_one_box``: IoU of one box a row; ``iou_upper_best_box``: of the region that fits
    the ground truth best; ``iou_upper_finalists``: of the best of those that the last step could choose.
    ``pointing_accuracy``: share of rows whose peak lies in a ground-truth box.
    """
    scores, sums, fallbacks = score_boxes(view, truth), _Sums(), dict.fromkeys(Fallback, 0)
    scored = set(scores.rows.tolist())
    for record in view.committed().values():
        status, *columns = (view[name][record.start : record.stop] for name in ("status", *ARRAYS[1:]))
        top, candidates, steps, peak, fallback = columns
        for kind in Fallback:
            fallbacks[kind] += int((fallback[status == Status.OK] & kind > 0).sum())
        for offset, row in enumerate(range(record.start, record.stop)):
            if row in scored:
                _add_row(sums, truth.boxes(row), top[offset], candidates[offset], steps[offset], peak[offset])
    result = scores.figures
    detail = {
        **{name: sums.mean(name) for name in MEANS},
        "iou_top_one_box": sums.mean("top"),
        "iou_final_one_box": result["iou_top1"],
        "iou_upper_best_box": sums.mean("upper"),
        "iou_upper_finalists": sums.mean("finalists"),
        "iou_centre_one_box": result["iou_centre"],
        "pointing_accuracy": sums.mean("pointing"),
        **{f"rows_{name.removeprefix('iou_').removesuffix('_mean_of_boxes')}": sums.rows(name) for name in MEANS},
        **{f"rows_fallback_{str(kind.name).lower()}": count for kind, count in fallbacks.items()},
    }
    return replace(scores, figures={**detail, **result})


class _Sums:
    """Means over the rows that have a value."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def mean(self, name: str) -> float | None:
        known = self.values.get(name)
        return float(np.mean(known)) if known else None

    def rows(self, name: str) -> int:
        return len(self.values.get(name, ()))


def _add_row(sums: _Sums, truth: Array, top: Array, candidates: Array, steps: Array, peak: Array) -> None:
    present = ~np.isnan(candidates).any(axis=1)
    boxes, passed = candidates[present], steps[present]
    if len(boxes):
        ious = iou_per_box(boxes, truth)
        sums.add("upper", float(ious.max()))
        finalists = ious[passed & int(Step.FINALIST) > 0]
        if len(finalists):  # no step chooses among boxes of a file or of a map
            sums.add("finalists", float(finalists.max()))
        for name, bits in MEANS.items():
            left = (passed & int(bits)) == int(bits)
            if left.any():
                sums.add(name, float(ious[left].mean()))
    if not np.isnan(top).any():
        sums.add("top", best_iou(top, truth))
    if not np.isnan(peak).any():
        x, y = peak
        inside = (truth[:, 0] <= x) & (x < truth[:, 2]) & (truth[:, 1] <= y) & (y < truth[:, 3])
        sums.add("pointing", float(inside.any()))


def first_box_ious(view: StageView, truth: Truth) -> dict[str, float]:
    """IoU of the first box of each row with the ground truth that fits it best, by image id.

    Rows without a box or without ground truth are left out.
    """
    ious: dict[str, float] = {}
    for record in view.committed().values():
        found, status = view["boxes"][record.start : record.stop], view["status"][record.start : record.stop]
        for offset in np.flatnonzero(status == Status.OK):
            row = record.start + int(offset)
            own = truth.boxes(row)
            if len(own) and not np.isnan(found[offset, 0]).any():
                ious[truth.rows.ids[row]] = best_iou(found[offset, :1], own)
    return ious
