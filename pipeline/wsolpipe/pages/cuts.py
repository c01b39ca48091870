"""Boxes of a map at every threshold, short enough to travel in a page: what its slider draws is what was measured."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from wsolpipe.metrics.maxbox import Convention, largest_boxes
from wsolpipe.metrics.scaling import SIDE

Array = np.ndarray[Any, Any]
THRESHOLDS = 1000
HALF_OPEN = Convention("half-open", eight_bit=True, inclusive=False, clip=False, holes=False)
"""Thresholds as the evaluator cuts, boxes half-open; its own box is this one with the far edges clipped to 223."""


def encode_cuts(framed: Array) -> str:
    """Boxes of the largest contour at the thresholds 0, 0.001 … of a map.

    Parameters
    ----------
    framed : float [224, 224]
        In the evaluator's frame, in 0..1.

    Returns
    -------
    str
        Base64 of six bytes for each box that differs from the one before: number of the first threshold (little
        endian), x0, y0, x1, y1 in pixels of the frame.

    Raises
    ------
    DataError
        If the map holds NaN or leaves 0..1.
    """
    boxes = largest_boxes(framed, thresholds=THRESHOLDS, convention=HALF_OPEN).astype(np.int64)
    starts = np.concatenate([[0], np.flatnonzero((boxes[1:] != boxes[:-1]).any(axis=1)) + 1])
    runs = np.concatenate([starts[:, None] % 256, starts[:, None] // 256, boxes[starts]], axis=1)
    return base64.b64encode(runs.astype(np.uint8).tobytes()).decode("ascii")


def decode_cut(cuts: str, tau: float) -> Array:
    """The box [4] of `encode_cuts` at the threshold next to `tau`, as shares of both sides; zeros for an empty one."""
    runs = np.frombuffer(base64.b64decode(cuts), np.uint8).reshape(-1, 6).astype(np.int64)
    starts = runs[:, 0] + 256 * runs[:, 1]
    place = np.searchsorted(starts, min(round(tau * THRESHOLDS), THRESHOLDS - 1), side="right") - 1
    return np.asarray(runs[place, 2:] / SIDE)
