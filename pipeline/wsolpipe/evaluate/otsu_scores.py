"""Box of the largest Otsu region of each map: a metric of maps that needs no threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.evaluate.box_scores import BoxScores, gather_scores
from wsolpipe.evaluate.figures import MapFigure
from wsolpipe.maps.foreground import largest_otsu_box, otsu_threshold
from wsolpipe.maps.levels import to_uint8
from wsolpipe.metrics.boxes import BoxEvaluation
from wsolpipe.metrics.protocol import figures_of_ious
from wsolpipe.metrics.scaling import SIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsolpipe.evaluate.figures import FramedBatch
    from wsolpipe.evaluate.truth import Truth

Array = np.ndarray[Any, Any]


class OtsuScores(MapFigure):
    """Mean IoU of each map's Otsu box (``iou_otsu``), and figures of the centred box on the same rows.

    Of masks, the pixels above each map's own Otsu threshold.
    """

    def __init__(self) -> None:
        self.boxes = BoxEvaluation()
        self.rows: list[Array] = [np.zeros(0, np.int64)]
        self.ious: list[dict[str, Array]] = []
        self.named: list[Array] = []  # of each scored row, whether its class was predicted
        self.pixels = np.zeros(2, np.int64)  # of both, of either
        self.masks = 0

    def add(self, batch: FramedBatch, truth: Truth) -> None:
        """Count a batch of maps."""
        rows, sizes = batch.rows, truth.rows.sizes[batch.rows]
        if truth.found:
            boxes = batch.shared("otsu boxes", lambda: otsu_boxes(batch.raw, sizes))
            seen = self.boxes.add_rows(boxes, *truth.stacked(rows), sizes, batch.objectless)
            self.rows.append(rows[seen.places])
            self.ious.append(seen.values)
            if batch.predicted is not None:
                self.named.append(batch.predicted[seen.places, 0] == batch.labels[seen.places])
        if truth.masks:
            for row, above in zip(rows, batch.shared("otsu masks", lambda: _otsu_masks(batch)), strict=True):
                self._add_pixels(truth, int(row), above)

    def _add_pixels(self, truth: Truth, row: int, above: Array) -> None:
        mask = truth.mask(row, len(above))
        if mask is None:
            return
        foreground, ignore = mask
        counted = above if ignore is None else above & (foreground | ~ignore)
        self.masks += 1
        self.pixels += ((counted & foreground).sum(), (counted | foreground).sum())

    def ranked(self) -> tuple[Array, Array]:
        """Rows [n] with a true box, worst first, and the IoU [n] of each."""
        rows = np.concatenate(self.rows)
        ious = np.concatenate([np.zeros(0), *(seen["iou_top1"] for seen in self.ious)])
        order = np.lexsort((rows, ious))
        return rows[order], ious[order]

    def entry(self, *, pixels: bool) -> dict[str, Any]:
        """Figures of boxes or of pixels as `wsolpipe.metrics.protocol` keeps them; PxAP has no threshold."""
        if pixels:
            both, either = (int(count) for count in self.pixels)
            return {"rows": self.masks, "iou": [round(both / max(either, 1), 6)]}
        return figures_of_ious(np.concatenate([np.zeros(0), *(each["iou_top1"] for each in self.ious)]))

    def scores(self, quarantined: int) -> BoxScores:
        """Figures of these boxes and what each row adds, as of a stage of boxes.

        Where classes were predicted, ``top1_loc`` is the share of rows whose class is right and whose box has IoU 0.5.

        Parameters
        ----------
        quarantined : int
            Rows whose image cannot be read.
        """
        found = gather_scores({**self.boxes.result(), "rows_quarantined": quarantined}, self.rows, self.ious)
        if self.named:
            hits = np.concatenate(self.named) & (found.ious["iou_top1"] >= 0.5)
            found.figures["top1_loc"] = float(hits.mean()) if len(hits) else None
        return found

    def result(self, tau: float | None) -> dict[str, Any]:  # noqa: ARG002 - Otsu's threshold is the map's own
        """IoU as fractions, shares of the centred box in per cent, None where no row could be scored."""
        found = self.boxes.result()
        centre = {"MaxBoxAcc_centre": found["recall50_centre"], "MaxBoxAccV2_centre": found["box_maxboxacc_v2_centre"]}
        shares = {name: None if share is None else 100 * share for name, share in centre.items()}
        return {"iou_otsu": found["iou_top1"], "iou_centre": found["iou_centre"], **shares}


def _otsu_masks(batch: FramedBatch) -> list[Array]:
    """Pixels of each framed map above its own Otsu threshold; none of a missing map."""
    side = next((len(score) for score in batch.framed if score is not None), SIDE)
    levels = [np.zeros((side, side), np.uint8) if score is None else to_uint8(score) for score in batch.framed]
    return [score > otsu_threshold(score) for score in levels]


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
    box = largest_otsu_box(levels, (height, width), side=SIDE)
    return np.zeros((0, 4), np.float32) if box is None else box[None]
