"""Score maps as arrays: thresholds, regions, levels, stretching. Pure functions, no cv2, usable by both halves."""

from __future__ import annotations

from wsolpipe.maps.components import label, largest_region_box, tight_boxes
from wsolpipe.maps.normalise import dequantise, minmax, quantise, to_uint8
from wsolpipe.maps.otsu import otsu_from_histograms, otsu_threshold, otsu_thresholds
from wsolpipe.maps.upsample import upsample

__all__ = [
    "dequantise",
    "label",
    "largest_region_box",
    "minmax",
    "otsu_from_histograms",
    "otsu_threshold",
    "otsu_thresholds",
    "quantise",
    "tight_boxes",
    "to_uint8",
    "upsample",
]
