"""Box of the largest Otsu region of each map: a metric of maps that needs no threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.evaluate.box_scores import BoxScores, score_blocks
from wsolpipe.maps.components import largest_region_box
from wsolpipe.maps.normalise import minmax, to_uint8
from wsolpipe.maps.otsu import otsu_threshold
from wsolpipe.maps.upsample import upsample
from wsolpipe.metrics.boxes import BoxEvaluation
from wsolpipe.metrics.scaling import SIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsolpipe.evaluate.frame import FramedBatch
    from wsolpipe.evaluate.map_sources import MapSource
    from wsolpipe.evaluate.truth import Truth

Array = np.ndarray[Any, Any]


class OtsuScores:
    """Mean IoU of each map's Otsu box (``iou_otsu``), and of the centred box on the same rows (``iou_centre``)."""

    def __init__(self) -> None:
        self.boxes = BoxEvaluation()

    def add(self, batch: FramedBatch, truth: Truth) -> None:
        """Count a batch of maps."""
        rows, sizes = batch.rows, truth.rows.sizes[batch.rows]
        self.boxes.add_rows(otsu_boxes(batch.raw, sizes), *truth.stacked(rows), sizes, batch.objectless)

    def result(self, tau: float | None) -> dict[str, Any]:  # noqa: ARG002 - Otsu's threshold is the map's own
        """Figures as fractions, None where no row could be scored."""
        found = self.boxes.result()
        return {"iou_otsu": found["iou_top1"], "iou_centre": found["iou_centre"]}


def score_otsu(source: MapSource, truth: Truth) -> BoxScores:
    """Score the Otsu boxes of all maps of a source, row by row."""
    blocks = (
        (batch.rows, np.zeros(len(batch.rows), np.bool_), otsu_boxes(batch.maps, truth.rows.sizes[batch.rows]))
        for batch in source.batches()
    )
    return score_blocks(blocks, truth)


def otsu_boxes(maps: Sequence[Array | None], sizes: Array) -> Array:
    """Otsu boxes of many maps, float64 [B, 1, 4], NaN where there is none; `sizes` [B, 2] as (width, height)."""
    found = np.full((len(maps), 1, 4), np.nan)
    for place, (raw, (width, height)) in enumerate(zip(maps, sizes, strict=True)):
        if raw is not None:
            box = otsu_box(raw, int(width), int(height))
            found[place, : len(box)] = box
    return found


def otsu_box(levels: Array, width: int, height: int) -> Array:
    """Box of the largest Otsu region of a map.

    Parameters
    ----------
    levels : array [h, w]
        Stored levels or raw values; its own minimum and maximum scale it.

    Returns
    -------
    float32 array [n, 4]
        One box in pixels of the image of `width` × `height`, or none where the map is constant or holds NaN.
    """
    if not np.isfinite(levels).all():
        return np.zeros((0, 4), np.float32)
    large = to_uint8(minmax(upsample(levels.astype(np.float32), (SIDE, SIDE))))
    box = largest_region_box(large > otsu_threshold(large))
    if box is None:
        return np.zeros((0, 4), np.float32)
    scale = np.array([width, height, width, height], np.float32) / SIDE
    return (box * scale)[None]
