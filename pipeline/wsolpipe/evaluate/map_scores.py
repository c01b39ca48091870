"""Scoring of score maps, batch by batch: of a stage, a folder or a network, against boxes and masks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from wsolpipe.contract.errors import ConfigError
from wsolpipe.evaluate.figures import FIGURES, Frame, FramedBatch, MapFigure
from wsolpipe.evaluate.otsu_scores import OtsuScores
from wsolpipe.metrics.accumulate import MaxBoxEvaluation, Swept
from wsolpipe.metrics.boxes import LEVELS
from wsolpipe.metrics.maxbox import Contours, iou_curves_of
from wsolpipe.metrics.pixels import PixelEvaluation, nearest_threshold, pixel_histograms
from wsolpipe.metrics.protocol import Metric, estimate_tau, figures
from wsolpipe.metrics.scaling import unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from wsolpipe.evaluate.map_sources import MapBatch, MapSource
    from wsolpipe.evaluate.truth import Truth
    from wsolpipe.metrics.confidence import Values

Array = np.ndarray[Any, Any]
BINS = 20
#: PxAP depends on their number, so it is the same everywhere.
PIXEL_THRESHOLDS = 1000
BOX_CURVES = {"largest": (0.5,), "all": (0.3, 0.5, 0.7)}


@dataclass
class Kept:
    """Values that single rows add to each figure, for intervals and tests: about 10 kB a row with boxes or masks."""

    values: dict[str, list[Array]] = field(default_factory=dict)
    rows: dict[str, list[Array]] = field(default_factory=dict)

    def add(self, name: str, rows: Array, values: Array) -> None:
        """Keep the values of some rows."""
        self.rows.setdefault(name, []).append(rows)
        self.values.setdefault(name, []).append(values)

    def get(self, name: str) -> tuple[Array, Array]:
        """Rows [n] and values [n, ...] of a figure."""
        return np.concatenate(self.rows[name]), np.concatenate(self.values[name])


class KeptIous(Kept):
    """Keeps the IoU of every row at every threshold and nothing else, by its changes: about 1 kB a row."""

    def add(self, name: str, rows: Array, values: Array) -> None:
        """Keep the curves [n, thresholds] of ``iou``."""
        if name == "iou":
            changes = np.diff(values, axis=1, prepend=np.nan) != 0
            super().add("iou", rows, values[changes])
            super().add("starts", rows, np.flatnonzero(changes).astype(np.int32))

    def at(self, place: int, thresholds: int) -> tuple[Array, Array]:
        """Rows [n] and the IoU [n] of each at one of the thresholds."""
        if not self.rows:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        found = [
            values[np.searchsorted(starts, np.arange(len(rows)) * thresholds + place, side="right") - 1]
            for rows, starts, values in zip(self.rows["iou"], self.values["starts"], self.values["iou"], strict=True)
        ]
        return np.concatenate(self.rows["iou"]), np.concatenate(found)


@dataclass
class MapScores:
    """Everything counted of the maps of a split.

    Attributes
    ----------
    truth : Truth
        What the maps were scored against.
    boxes : MaxBoxEvaluation
    pixels : PixelEvaluation or None
        None where no row has a mask.
    more : dict of str to MapFigure
        Further figures by name.
    histogram : int64 [thresholds, BINS]
        Rows by IoU of the largest contour's box, at each threshold.
    rows_missing, rows_unusable : int
        Rows with ground truth, boxes or masks, that have no map, and those whose map is constant or holds NaN or
        infinity; all of them score as empty maps.
    quarantined : int
        Rows whose image cannot be read; they are in no other count.
    kept : Kept or None
    """

    truth: Truth
    boxes: MaxBoxEvaluation
    pixels: PixelEvaluation | None
    more: dict[str, MapFigure] = field(default_factory=dict)
    histogram: Array = field(default_factory=lambda: np.zeros((0, BINS), np.int64))
    rows_missing: int = 0
    rows_unusable: int = 0
    quarantined: int = 0
    kept: Kept | None = None

    @property
    def metric(self) -> Metric:
        """The main metric, by what the truth is: MaxBoxAcc of boxes, PxAP of masks alone."""
        return "MaxBoxAcc" if self.boxes.rows_scored or self.pixels is None else "PxAP"

    def entry(self, metric: Metric | None = None) -> dict[str, Any]:
        """Counts by threshold as `wsolpipe.metrics.protocol` keeps them, of the side that a metric is of.

        ``otsu`` holds the same at each map's own Otsu threshold, where that was counted.

        Raises
        ------
        ConfigError
            If the truth holds nothing that the metric is of.
        """
        name = metric or self.metric
        kind = self.pixels if name == "PxAP" else self.boxes if self.boxes.rows_scored else None
        if kind is None:
            msg = f"{self.truth.name} of {self.truth.rows.split} holds nothing that {name} could be computed of"
            raise ConfigError(msg)
        made, otsu = figures(kind), self.more.get("otsu")
        if isinstance(otsu, OtsuScores):
            area = {"PxAP": made["PxAP"]} if "PxAP" in made else {}
            made["otsu"] = {**otsu.entry(pixels=kind is self.pixels), **area}
        return made

    def choose_tau(self, metric: Metric | None = None) -> float:
        """Threshold to carry to another split: the middle of the best plateau by a metric.

        Raises
        ------
        ConfigError
            As `entry`.
        """
        return estimate_tau(self.entry(metric), metric or self.metric)

    def best_tau(self) -> float | None:
        """Threshold that suits these very rows best, None where no row could be scored."""
        if self.boxes.rows_scored:
            return self.boxes.best_tau()
        if self.pixels is not None:
            return float(self.pixels.curves()["iou"].argmax()) / self.pixels.thresholds
        return None

    def row_values(self, tau: float | None) -> Values:
        """Rows and what each adds, by figure; at one threshold where that was chosen; scored with ``keep``."""
        kept = self.kept
        assert kept is not None
        names = {"MaxBoxAcc": "largest 0.5", "iou": "iou"}
        names |= {f"MaxBoxAccV2_{level * 100:g}": f"all {level}" for level in LEVELS}
        found = {}
        for name, stored in names.items():
            if stored in kept.values:
                rows, values = kept.get(stored)
                scale = 1.0 if name == "iou" else 100.0
                if tau is not None:
                    values = values[:, nearest_threshold(tau, values.shape[1])]
                found[name] = rows, values * np.float32(scale)
        levels = [found[f"MaxBoxAccV2_{level * 100:g}"] for level in LEVELS if f"MaxBoxAccV2_{level * 100:g}" in found]
        if levels:  # each level at its own best threshold where none was chosen beforehand
            at = [each if each.ndim == 1 else each[:, each.mean(axis=0).argmax()] for _, each in levels]
            found["MaxBoxAccV2"] = levels[0][0], np.mean(at, axis=0)
        if "PxAP" in kept.values:
            found["PxAP"] = kept.get("PxAP")
        return found

    def ious_at(self, tau: float) -> Array:
        """Rows by IoU at one threshold (int64 [BINS])."""
        counts: Array = self.histogram[nearest_threshold(tau, len(self.histogram))]
        return counts

    def result(self, tau: float | None = None) -> dict[str, Any]:
        """Figures under the names that scripts rely on; scores in per cent, IoU and tau as fractions.

        Parameters
        ----------
        tau : float, optional
            Chosen beforehand. Without it MaxBoxAcc, each level of MaxBoxAccV2 and `iou` take their own best
            thresholds of these rows, as in the field's evaluator.
        """
        found = self.boxes.result(tau=tau)
        found |= {"rows_missing": self.rows_missing, "rows_unusable": self.rows_unusable}
        found |= {"PxAP": None, "pixel_iou": None}
        if self.pixels is not None:
            pixels = self.pixels.result(tau=tau)
            names = ("PxAP", "pixel_iou", "rows_without_mask", "true_negative_rate")
            found |= {**{name: pixels[name] for name in names}, "pixel_tau": pixels["tau"]}
        for metric in self.more.values():
            found |= metric.result(tau)
        chosen = self.best_tau() if tau is None else found["tau"] or tau
        return {**found, "tau": chosen, "rows_quarantined": self.quarantined}


def score_maps(source: MapSource, truth: Truth, frame: Frame, **options: Any) -> MapScores:
    """Score all maps of a source against one truth; see `score_against`."""
    return score_against(source, {"": truth}, frame, **options)[""]


def score_against(
    source: MapSource,
    truths: Mapping[str, Truth],
    frame: Frame,
    *,
    threads: int | None = None,
    keep: bool | type[Kept] = False,
    thresholds: int = 1000,
    details: bool = True,
    classes: bool = False,
    more: Collection[str] | None = None,
    watch: Callable[[FramedBatch], None] | None = None,
) -> dict[str, MapScores]:
    """Score all maps of a source against several truths in one pass; memory does not grow with the number of rows.

    Parameters
    ----------
    source : MapSource
    truths : mapping of str to Truth
        All of the rows of the source.
    frame : Frame
    threads : int, optional
        Threads that score maps and read masks; default one a core.
    keep : bool or type of Kept
        Keep what every row adds, for intervals; this does grow. `KeptIous` keeps less.
    thresholds : int
        Thresholds 0, 1/n, 2/n … of boxes; pixels always have `PIXEL_THRESHOLDS`.
    details : bool
        Count the histogram of IoU.
    classes : bool
        Keep a curve a class, for CorLoc.
    more : collection of str, optional
        Names of the `FIGURES` that are counted; all of them with `details`, else none.
    watch : callable, optional
        Called once with each batch of maps in the frame.

    Returns
    -------
    dict of str to MapScores
        By the names of `truths`.
    """
    found = {}
    if more is None:
        more = FIGURES.names() if details else ()
    for name, truth in truths.items():
        boxes = MaxBoxEvaluation(
            thresholds=thresholds, convention=frame.convention, labels=source.labels, threads=threads, classes=classes
        )
        scores = MapScores(truth, boxes, PixelEvaluation(thresholds=PIXEL_THRESHOLDS) if truth.masks else None)
        scores.kept = (Kept if keep is True else keep)() if keep else None
        scores.more = {key: FIGURES.find(key)() for key in more}
        if details:
            scores.histogram = np.zeros((thresholds, BINS), np.int64)
        found[name] = scores
    with ThreadPoolExecutor(threads) as pool:
        for batch in source.batches():
            together: dict[int, list[MapScores]] = {}
            for scores in found.values():  # truths of one split share their rows
                together.setdefault(id(scores.truth.rows), []).append(scores)
            for number, group in enumerate(together.values()):
                framed = _framed(batch, group[0].truth, frame)
                if watch is not None and not number:
                    watch(framed)
                swept = _sweep(group, framed, frame) if len(group) > 1 else {}
                for scores in group:
                    _add_batch(scores, framed, frame, pool, swept.get(id(scores)))
    for scores in found.values():
        scores.quarantined = source.quarantined
    return found


def _framed(batch: MapBatch, truth: Truth, frame: Frame) -> FramedBatch:
    rows, numbers = truth.rows, [int(row) for row in batch.rows]

    def bring(raw: Array | None, row: int) -> Array | None:
        return None if raw is None else frame.map(raw, rows.ids[row])

    return FramedBatch(
        rows=np.asarray(batch.rows, np.int64),
        raw=batch.maps,
        framed=[bring(raw, row) for raw, row in zip(batch.maps, numbers, strict=True)],
        labels=np.array([rows.label(row) for row in numbers], np.int64),
        objectless=np.array([rows.objectless(row) for row in numbers], np.bool_),
        predicted=batch.predicted,
        of_label={place: bring(raw, numbers[place]) for place, raw in batch.of_label.items()},
    )


def _framed_boxes(truth: Truth, batch: FramedBatch, frame: Frame) -> list[Array]:
    sizes = truth.rows.sizes[batch.rows]
    return [
        frame.boxes(truth.boxes(int(row)), (int(width), int(height)))
        for row, (width, height) in zip(batch.rows, sizes, strict=True)
    ]


def _sweep(group: list[MapScores], batch: FramedBatch, frame: Frame) -> dict[int, dict[Contours, Array]]:
    """Curves of every truth that has boxes, by the ids of their scores: the thresholds of each map are swept once."""
    with_boxes = [scores for scores in group if scores.truth.found]
    sets = [_framed_boxes(scores.truth, batch, frame) for scores in with_boxes]
    places = [place for place in range(len(batch.rows)) if any(len(boxes[place]) for boxes in sets)]
    if not places:
        return {}
    empty = np.zeros((frame.side, frame.side))
    maps = [batch.framed[place] for place in places]
    stack = np.stack([empty if score is None or not np.isfinite(score).all() else score for score in maps])
    own = [[boxes[place] for place in places] for boxes in sets]
    curves: dict[int, dict[Contours, Array]] = {id(scores): {} for scores in with_boxes}
    modes: tuple[Contours, ...] = ("largest", "all")
    for mode in modes:
        settings = group[0].boxes
        found = iou_curves_of(
            stack, own, thresholds=settings.thresholds, contours=mode, convention=frame.convention,
            threads=settings.threads,
        )  # fmt: skip
        for scores, curve in zip(with_boxes, found, strict=True):
            whole = np.zeros((len(batch.rows), settings.thresholds))
            whole[places] = curve
            curves[id(scores)][mode] = whole
    return curves


def _add_batch(
    scores: MapScores,
    batch: FramedBatch,
    frame: Frame,
    pool: ThreadPoolExecutor,
    swept: Mapping[Contours, Array] | None,
) -> None:
    truth, numbers = scores.truth, [int(row) for row in batch.rows]
    boxes = _framed_boxes(truth, batch, frame)
    flawed = batch.shared("flawed", lambda: [score is not None and bool(unusable(score)) for score in batch.framed])
    for place, (own, row, empty) in enumerate(zip(boxes, numbers, batch.objectless, strict=True)):
        if (len(own) and not empty) or row in truth.masks:
            scores.rows_missing += int(batch.framed[place] is None)
            scores.rows_unusable += int(flawed[place])
    places, curves = scores.boxes.add(
        batch.framed,
        boxes,
        truth=batch.labels.tolist(),
        predicted=batch.predicted,
        objectless=batch.objectless.tolist(),
        of_truth=batch.of_label,
        swept=None if swept is None else Swept(swept, flawed),
    )
    for mode, curve in curves.items():
        _observe(scores, batch.rows, mode, places, curve)
    for metric in scores.more.values():
        metric.add(batch, truth)
    if scores.pixels is not None:
        masks = pool.map(lambda row: truth.mask(row, frame.side), numbers)
        for row, score, mask in zip(numbers, batch.framed, masks, strict=True):
            _add_pixels(scores, row, score, mask)


def _add_pixels(scores: MapScores, row: int, score: Array | None, mask: tuple[Array, Array | None] | None) -> None:
    pixels = cast("PixelEvaluation", scores.pixels)
    if mask is None:
        pixels.add(score, None)
        return
    pixels.add(score, *mask)
    if scores.kept is not None:
        filled = np.zeros(mask[0].shape) if score is None else score
        counts = pixel_histograms(filled, *mask, thresholds=pixels.thresholds)[None].astype(np.int32)
        scores.kept.add("PxAP", np.array([row]), counts)


def _observe(scores: MapScores, rows: Array, mode: str, places: Array, curves: Array) -> None:
    if mode == "largest" and len(scores.histogram):
        bins = np.minimum((curves * BINS).astype(np.int64), BINS - 1) + BINS * np.arange(curves.shape[1])
        scores.histogram += np.bincount(bins.ravel(), minlength=scores.histogram.size).reshape(-1, BINS)
    if scores.kept is None:
        return
    for level in BOX_CURVES[mode]:
        scores.kept.add(f"{mode} {level}", rows[places], (curves >= level).astype(np.uint8))
    if mode == "largest":
        scores.kept.add("iou", rows[places], curves.astype(np.float32))
