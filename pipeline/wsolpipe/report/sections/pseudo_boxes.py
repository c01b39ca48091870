"""Validation pseudo-boxes by annotator: each step's figure, spread of IoU, and boxes beside ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.schema import Status
from wsolpipe.evaluate.box_scores import BoxScores, is_val_boxes, score_val_boxes
from wsolpipe.evaluate.truth import Truth, truth_of_index
from wsolpipe.pages.charts import Curve, Plot, draw_figure, histogram
from wsolpipe.pages.pictures import Photo
from wsolpipe.report.material import Material, shards_note
from wsolpipe.report.page import Section
from wsolpipe.report.row_cards import still_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.contract.reader import StageView

Array = np.ndarray[Any, Any]
#: Rows of the table: figure, what it is, its estimator.
STEPS = (
    ("iou_pointing_mean_of_boxes", "Pointing game", "mean of the boxes left"),
    ("iou_top_mean_of_boxes", "Best share by score", "mean of the boxes left"),
    ("iou_top_pointing_mean_of_boxes", "Best share, then pointing game", "mean of the boxes left"),
    ("iou_top_one_box", "Best box by score", "one box"),
    ("iou_final_one_box", "The pseudo-box", "one box"),
    ("iou_upper_finalists", "Upper bound, finalists", "of the regions left to the last step, the one that fits best"),
    ("iou_upper_best_box", "Upper bound", "the region that fits ground truth best"),
    ("iou_centre_one_box", "Centred box", "one box"),
)
SHOWN = 12
PHOTO = Photo(260)


def _views(material: Material) -> list[StageView]:
    """Results of pseudo-boxes of the split that have finished rows."""
    split = material.store[material.dataset][material.split]
    views = [split.stage("val_boxes", key) for key in split.keys("val_boxes")] if "val_boxes" in split.stages() else []
    return [view for view in views if is_val_boxes(view) and view.committed()]


def _facts(material: Material) -> Mapping[str, Any] | None:
    truth = truth_of_index(material.index)
    found = [_annotator(material, view, truth) for view in _views(material)]
    return {"annotators": found} if found else None


def _plots(material: Material) -> dict[str, Plot]:
    truth = truth_of_index(material.index)
    drawn = {view.key: _charts(score_val_boxes(view, truth)) for view in _views(material)}
    return {f"{key}-{name}": plot for key, plots in drawn.items() for name, plot in plots.items()}


def _charts(scores: BoxScores) -> dict[str, Plot]:
    """Figure of each step, and the spread of the pseudo-boxes; nothing without ground truth."""
    if not len(scores.rows):
        return {}
    known = [step for step in STEPS if scores.figures[step[0]] is not None]
    steps = Curve("mean IoU", np.array([scores.figures[name] for name, _, _ in known], np.float64))
    names = [f"{label} ({estimator})" for _, label, estimator in known]
    ious = histogram("pseudo-box", scores.ious["iou_top1"], bins=10, far=100)
    return {
        "steps": Plot("Step by step", "step", [steps], "bars", names=names),
        "iou": Plot("Rows by IoU", "IoU with ground truth, per cent", [ious], "steps", far=100),
    }


def _annotator(material: Material, view: StageView, truth: Truth) -> dict[str, Any]:
    """Figures, chart and sampled rows of one result."""
    scores = score_val_boxes(view, truth)
    boxes = _boxes(view)
    ious = np.full(len(truth.rows), np.nan)
    ious[scores.rows] = scores.ious["iou_top1"]
    return {
        "name": str(view.manifest.params.get("annotator", "")),
        "key": view.key,
        "notes": shards_note(view),
        "figures": scores.figures,
        "charts": [draw_figure(plot) for plot in _charts(scores).values()],
        "cards": [
            still_of(material, row, boxes[row], PHOTO, iou=float(ious[row])) for row in _sample(ious, list(boxes))
        ],
    }


def _boxes(view: StageView) -> dict[int, Array]:
    """The pseudo-box [4] of the rows that have one."""
    boxes = {}
    for record in view.committed().values():
        status, found = (view[name][record.start : record.stop] for name in ("status", "boxes"))
        for offset in np.flatnonzero((status == Status.OK) & ~np.isnan(found[:, 0]).any(axis=1)):
            boxes[record.start + int(offset)] = found[offset, 0]
    return boxes


def _sample(ious: Array, boxes: list[int]) -> list[int]:
    """Rows at even steps from the best to the worst IoU; in row order without ground truth."""
    rows = np.array(boxes, np.int64)
    scored = rows[~np.isnan(ious[rows])] if len(rows) else rows
    ranked = scored[np.argsort(-ious[scored], kind="stable")] if len(scored) else rows
    if not len(ranked):
        return []
    places = np.unique(np.linspace(0, len(ranked) - 1, min(SHOWN, len(ranked))).astype(int))
    return [int(ranked[place]) for place in places]


SECTION = Section(name="pseudo-boxes", title="Pseudo-boxes", order=30, facts=_facts, plots=_plots)
