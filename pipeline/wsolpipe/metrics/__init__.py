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
from wsolpipe.metrics.maxbox import (
    CLEAN,
    CONVENTIONS,
    STANDARD,
    Convention,
    iou_curves,
    largest_box,
    largest_boxes,
    maxbox_counts,
    taus,
)
from wsolpipe.metrics.pixels import PixelEvaluation, pixel_histograms, pxap, pxap_of
from wsolpipe.metrics.scaling import minmax, resize_maps, scaled_boxes, standard_boxes, standard_maps, unusable

__all__ = [
    "CLEAN",
    "CONVENTIONS",
    "LEVELS",
    "STANDARD",
    "BoxEvaluation",
    "Convention",
    "PixelEvaluation",
    "as_boxes",
    "best_iou",
    "box_areas",
    "box_recall",
    "centred_box",
    "intersections",
    "iou_curves",
    "iou_matrix",
    "iou_per_box",
    "iou_shares",
    "largest_box",
    "largest_boxes",
    "maxbox_counts",
    "minmax",
    "pixel_histograms",
    "pxap",
    "pxap_of",
    "resize_maps",
    "scaled_boxes",
    "standard_boxes",
    "standard_maps",
    "taus",
    "unusable",
]
