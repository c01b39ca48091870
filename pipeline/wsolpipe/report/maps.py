"""Scoring of score maps, batch by batch: a stage of maps or a folder of them against boxes and masks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.maps.components import largest_region_box
from wsolpipe.maps.normalise import minmax as scaled
from wsolpipe.maps.normalise import to_uint8
from wsolpipe.maps.otsu import otsu_threshold
from wsolpipe.maps.upsample import upsample
from wsolpipe.metrics.accumulate import MaxBoxEvaluation
from wsolpipe.metrics.boxes import BoxEvaluation
from wsolpipe.metrics.maxbox import CONVENTIONS, Convention
from wsolpipe.metrics.pixels import PixelEvaluation, nearest_threshold, pixel_histograms
from wsolpipe.metrics.scaling import SIDE, scaled_boxes, standard_boxes, standard_maps, unusable

if TYPE_CHECKING:
    from wsolpipe.report.mapsources import MapBatch, MapSource
    from wsolpipe.report.reference import Reference

Array = np.ndarray[Any, Any]
BINS = 20
BOX_CURVES = {"largest": (0.5,), "all": (0.3, 0.5, 0.7)}


@dataclass(frozen=True)
class Frame:
    """How maps are brought to the boxes, and boxes to the maps.

    Attributes
    ----------
    convention : Convention
        Of boxes and areas; the standard one truncates boxes to whole pixels.
    side : int
        Both sides of the frame in pixels.
    normalise : bool
        Min-max each map. Without it maps must lie in 0..1 and are taken as they are.
    """

    convention: Convention = CONVENTIONS["standard"]
    side: int = SIDE
    normalise: bool = True

    def map(self, raw: Array, name: str) -> Array:
        """Bring a map [h, w] into the frame (float64 [side, side]); one that holds NaN or infinity becomes zeros.

        Raises
        ------
        DataError
            If a value is outside 0..1 and maps are not normalised.
        """
        if not np.isfinite(raw).all():
            return np.zeros((self.side, self.side))
        if not self.normalise and (raw.min() < 0 or raw.max() > 1):
            msg = f"the map of {name} leaves 0..1: {raw.min():g} to {raw.max():g}"
            raise DataError(msg, hint="leave out normalise=false: every map is then scaled by its own range")
        return standard_maps(raw, side=self.side, normalise=self.normalise)

    def boxes(self, boxes: Array, size: tuple[int, int]) -> Array:
        """Boxes [M, 4] of an image of `size` (width, height) in the frame."""
        if self.convention.inclusive:
            return standard_boxes(boxes, size, side=self.side)
        return scaled_boxes(boxes, size, (self.side, self.side))


@dataclass
class Kept:
    """What single rows add to each figure, for intervals and paired tests: about 10 kB a row with boxes or masks."""

    values: dict[str, list[Array]] = field(default_factory=dict)
    rows: dict[str, list[Array]] = field(default_factory=dict)

    def add(self, name: str, rows: Array, values: Array) -> None:
        """Keep the values of some rows."""
        self.rows.setdefault(name, []).append(rows)
        self.values.setdefault(name, []).append(values)

    def get(self, name: str) -> tuple[Array, Array]:
        """Rows [n] and values [n, ...] of a figure."""
        return np.concatenate(self.rows[name]), np.concatenate(self.values[name])


@dataclass
class MapScores:
    """Everything counted of the maps of a split.

    Attributes
    ----------
    boxes : MaxBoxEvaluation
    pixels : PixelEvaluation or None
        None where no row has a mask.
    otsu : BoxEvaluation
        Of the largest Otsu region of each map.
    histogram : int64 [thresholds, BINS]
        Rows by IoU of the largest contour's box, at each threshold.
    centre : int64 [BINS]
        The same of the centred box.
    rows_unusable : int
        Rows with ground truth whose map is constant or holds NaN or infinity; they score as empty maps.
    quarantined : int
    labels : str
    kept : Kept or None
    """

    boxes: MaxBoxEvaluation
    pixels: PixelEvaluation | None
    otsu: BoxEvaluation = field(default_factory=BoxEvaluation)
    histogram: Array = field(default_factory=lambda: np.zeros((0, BINS), np.int64))
    rows_unusable: int = 0
    quarantined: int = 0
    labels: str = "true"
    kept: Kept | None = None

    def best_tau(self) -> float | None:
        """Threshold that suits these very rows best: by MaxBoxAcc, or by pixel IoU where there are only masks."""
        if self.boxes.rows_scored:
            return self.boxes.best_tau()
        if self.pixels is not None:
            return float(self.pixels.curves()["iou"].argmax()) / self.pixels.thresholds
        return None

    def ious_at(self, tau: float) -> Array:
        """Rows by IoU at one threshold (int64 [BINS])."""
        counts: Array = self.histogram[nearest_threshold(tau, len(self.histogram))]
        return counts

    def result(self, tau: float | None) -> dict[str, Any]:
        """Figures under the names that scripts rely on; scores in per cent, IoU and tau as fractions.

        Parameters
        ----------
        tau : float, optional
            Chosen beforehand. Without it MaxBoxAcc, each level of MaxBoxAccV2 and `iou` take their own best
            thresholds of these rows, as in the field's evaluator.
        """
        figures = self.boxes.result(tau=tau)
        figures |= {"rows_unusable": self.rows_unusable, "labels": self.labels, "PxAP": None, "pixel_iou": None}
        if self.pixels is not None:
            pixels = self.pixels.result(tau=tau)
            names = ("PxAP", "pixel_iou", "rows_without_mask", "true_negative_rate")
            figures |= {**{name: pixels[name] for name in names}, "pixel_tau": pixels["tau"]}
        single = self.otsu.result()
        figures |= {"iou_otsu": single["iou_top1"], "iou_centre": single["iou_centre"]}
        return {**figures, "tau": self.best_tau() if tau is None else figures["tau"] or tau}


def score_maps(
    source: MapSource, reference: Reference, frame: Frame, *, threads: int | None = None, keep: bool = False
) -> MapScores:
    """Score all maps of a source, with memory that does not grow with the number of rows.

    Parameters
    ----------
    threads : int, optional
        Of the sweep and of reading masks; default one a core.
    keep : bool
        Keep what every row adds, for intervals; this does grow.
    """
    boxes = MaxBoxEvaluation(convention=frame.convention, labels=source.labels, threads=threads)
    scores = MapScores(boxes, PixelEvaluation() if reference.masks else None, labels=source.labels)
    scores.histogram = np.zeros((boxes.thresholds, BINS), np.int64)
    scores.kept = Kept() if keep else None
    with ThreadPoolExecutor(threads) as pool:
        for batch in source.batches():
            _add_batch(scores, batch, reference, frame, pool)
    boxes.observer = None
    scores.quarantined = source.quarantined
    return scores


def _add_batch(
    scores: MapScores, batch: MapBatch, reference: Reference, frame: Frame, pool: ThreadPoolExecutor
) -> None:
    rows, numbers = reference.rows, [int(row) for row in batch.rows]
    framed = [
        None if raw is None else frame.map(raw, rows.ids[row]) for row, raw in zip(numbers, batch.maps, strict=True)
    ]
    sizes = [(int(rows.sizes[row, 0]), int(rows.sizes[row, 1])) for row in numbers]
    boxes = [reference.boxes(row) for row in numbers]
    silent = [rows.objectless(row) for row in numbers]
    for score, own, row in zip(framed, boxes, numbers, strict=True):
        known = len(own) or row in reference.masks
        scores.rows_unusable += int(bool(known) and score is not None and bool(unusable(score)))
    scores.boxes.observer = lambda mode, places, curves: _observe(scores, batch.rows, mode, places, curves)
    scores.boxes.add(
        framed,
        [frame.boxes(own, size) for own, size in zip(boxes, sizes, strict=True)],
        truth=[rows.labels[row][0] if rows.labels[row] else -1 for row in numbers],
        predicted=batch.predicted,
        objectless=silent,
    )
    for raw, own, size, empty in zip(batch.maps, boxes, sizes, silent, strict=True):
        single = np.zeros((0, 4)) if raw is None else otsu_box(raw, *size)
        scores.otsu.add(single, own, size=size, objectless=empty)
    if scores.pixels is not None:
        masks = pool.map(lambda row: reference.mask(row, frame.side), numbers)
        for row, score, mask in zip(numbers, framed, masks, strict=True):
            _add_pixels(scores, row, score, mask)


def _add_pixels(scores: MapScores, row: int, score: Array | None, mask: tuple[Array, Array | None] | None) -> None:
    assert scores.pixels is not None
    if mask is None:
        scores.pixels.add(score, None)
        return
    scores.pixels.add(score, *mask)
    if scores.kept is not None:
        filled = np.zeros(mask[0].shape) if score is None else score
        scores.kept.add("PxAP", np.array([row]), pixel_histograms(filled, *mask)[None].astype(np.int32))


def _observe(scores: MapScores, rows: Array, mode: str, places: Array, curves: Array) -> None:
    if mode == "largest":
        bins = np.minimum((curves * BINS).astype(np.int64), BINS - 1) + BINS * np.arange(curves.shape[1])
        scores.histogram += np.bincount(bins.ravel(), minlength=scores.histogram.size).reshape(-1, BINS)
    if scores.kept is None:
        return
    for level in BOX_CURVES[mode]:
        scores.kept.add(f"{mode} {level}", rows[places], (curves >= level).astype(np.uint8))
    if mode == "largest":
        scores.kept.add("iou", rows[places], curves.astype(np.float32))


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
    large = to_uint8(scaled(upsample(levels.astype(np.float32), (SIDE, SIDE))))
    box = largest_region_box(large > otsu_threshold(large))
    if box is None:
        return np.zeros((0, 4), np.float32)
    scale = np.array([width, height, width, height], np.float32) / SIDE
    return (box * scale)[None]
