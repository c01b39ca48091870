"""How good boxes, maps and labels are: pure functions on arrays, usable alone (``from wsolpipe import metrics``)."""

from __future__ import annotations

from wsolpipe.maps.levels import peak
from wsolpipe.metrics.accumulate import MaxBoxEvaluation
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
from wsolpipe.metrics.confidence import Comparison, Interval, compare, interval
from wsolpipe.metrics.localization import (
    classification_accuracy,
    corloc,
    dissect,
    dissection,
    otsu_box,
    pointing_hit,
    points_in_boxes,
    true_negatives,
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
from wsolpipe.metrics.noise import eroded_mask, noisy_boxes
from wsolpipe.metrics.pixels import PixelEvaluation, pixel_histograms, pxap, pxap_of
from wsolpipe.metrics.protocol import estimate_tau, read_runs, select, write_run
from wsolpipe.metrics.protocol_tables import protocol_table
from wsolpipe.metrics.scaling import minmax, resize_maps, scaled_boxes, standard_boxes, standard_maps, unusable
from wsolpipe.metrics.scoremaps import ScoreMaps

__all__ = [
    "CLEAN",
    "CONVENTIONS",
    "LEVELS",
    "STANDARD",
    "BoxEvaluation",
    "Comparison",
    "Convention",
    "Interval",
    "MaxBoxEvaluation",
    "PixelEvaluation",
    "ScoreMaps",
    "as_boxes",
    "best_iou",
    "box_areas",
    "box_recall",
    "centred_box",
    "classification_accuracy",
    "compare",
    "corloc",
    "dissect",
    "dissection",
    "eroded_mask",
    "estimate_tau",
    "intersections",
    "interval",
    "iou_curves",
    "iou_matrix",
    "iou_per_box",
    "iou_shares",
    "largest_box",
    "largest_boxes",
    "maxbox_counts",
    "minmax",
    "noisy_boxes",
    "otsu_box",
    "peak",
    "pixel_histograms",
    "pointing_hit",
    "points_in_boxes",
    "protocol_table",
    "pxap",
    "pxap_of",
    "read_runs",
    "resize_maps",
    "scaled_boxes",
    "select",
    "standard_boxes",
    "standard_maps",
    "taus",
    "true_negatives",
    "unusable",
    "write_run",
]
