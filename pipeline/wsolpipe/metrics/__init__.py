"""How good boxes, maps and labels are: pure functions on arrays, usable alone (``from wsolpipe import metrics``)."""

from __future__ import annotations

from wsolpipe.metrics.boxes import (
    LEVELS,
    BoxEvaluation,
    as_boxes,
    best_iou,
    box_areas,
    box_recall,
    centred_box,
    intersections,
    iou_matrix,
    iou_per_box,
    iou_shares,
)

__all__ = [
    "LEVELS",
    "BoxEvaluation",
    "as_boxes",
    "best_iou",
    "box_areas",
    "box_recall",
    "centred_box",
    "intersections",
    "iou_matrix",
    "iou_per_box",
    "iou_shares",
]
