"""Figures of maps beside MaxBoxAcc, IoU and PxAP: a class each, found by its name; other packages may add theirs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.contract.named import Registry
from wsolpipe.metrics.localization import NAMED, OUTCOMES, outcomes_of
from wsolpipe.metrics.maxbox import CONVENTIONS, Convention, largest_boxes
from wsolpipe.metrics.pixels import nearest_threshold
from wsolpipe.metrics.scaling import SIDE, scaled_boxes, standard_boxes, standard_maps

if TYPE_CHECKING:
    from wsolpipe.evaluate.truth import Truth


@dataclass(frozen=True)
class Frame:
    """How maps and boxes are brought to one size.

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


@dataclass(frozen=True)
class FramedBatch:
    """Maps of some rows as metrics get them.

    Attributes
    ----------
    rows : int64 array [B]
    raw : sequence of float array [h, w] or None
        As they were made; None where a map is missing.
    framed : sequence of float64 array [side, side] or None
        The same in the frame, in 0..1.
    labels : int64 array [B]
        First label of each row, −1 where it has none.
    objectless : bool array [B]
        Rows whose class has no object.
    predicted : int array [B, K] or None
        Predicted classes, best first.
    of_label : mapping of int to float64 array [side, side] or None
        By position, the map of the row's own label where `framed` holds that of another class.
    """

    rows: Array
    raw: Sequence[Array | None]
    framed: Sequence[Array | None]
    labels: Array
    objectless: Array
    predicted: Array | None
    of_label: Mapping[int, Array | None]
    _shared: dict[str, Any] = field(default_factory=dict)

    def shared(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what metrics make of these maps whatever they are scored against, made once for each batch."""
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]


class MapFigure(ABC):
    """Counts of maps from which figures follow; memory may grow by a few numbers for each row.

    One is made without arguments for each truth that maps are scored against. `wsolpipe.testing.FigureTests` is the
    suite that each of them must pass.

    Attributes
    ----------
    explained : mapping of str to mapping of str to str
        What the glossary says of each figure that it does not hold: ``shown`` (in tables), ``kind`` (``fraction``,
        ``per cent``, ``threshold``, ``weight``, ``count`` or ``text``) and ``meaning``.
    """

    explained: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    @abstractmethod
    def add(self, batch: FramedBatch, truth: Truth) -> None:
        """Count a batch of maps; each row of a split comes once, in any batch."""

    @abstractmethod
    def result(self, tau: float | None) -> dict[str, Any]:
        """Return figures by name, None where no row could be counted.

        Parameters
        ----------
        tau : float or None
            Threshold in 0..1 that was chosen beforehand; None: each figure takes its best one of these rows.
        """


#: Every figure by its name; a package of its own declares one in the entry-point group ``wsolpipe.figures``.
FIGURES: Registry[type[MapFigure]] = Registry(
    "figure",
    "wsolpipe.figures",
    {
        "otsu": "wsolpipe.evaluate.otsu_scores:OtsuScores",
        "values": "wsolpipe.evaluate.figures:ValueHistograms",
        "errors": "wsolpipe.evaluate.figures:ErrorDissection",
    },
    "wsolpipe.evaluate.figures:MapFigure",
)


Array = np.ndarray[Any, Any]
THRESHOLDS = 100
BINS = 10


class ErrorDissection(MapFigure):
    """Outcome of each row's largest box, by the rules of `wsolpipe.metrics.localization`, at 100 thresholds.

    Boxes are those of the standard evaluator. The class counts as wrong where predictions are known and the label is
    not the first of them.
    """

    def __init__(self) -> None:
        self.counts = np.zeros((len(OUTCOMES), THRESHOLDS), np.int64)

    def add(self, batch: FramedBatch, truth: Truth) -> None:
        """Count a batch of maps; a missing one counts as an empty box."""
        for place, (score, row) in enumerate(zip(batch.framed, batch.rows, strict=True)):
            boxes = truth.boxes(int(row))
            if not len(boxes) or batch.objectless[place]:
                continue
            first = None if batch.predicted is None else batch.predicted[place].ravel()[0]
            if first is not None and batch.labels[place] >= 0 and first != batch.labels[place]:
                self.counts[OUTCOMES.index("wrong class")] += 1
                continue
            own = np.zeros((THRESHOLDS, 4)) if score is None else largest_boxes(score, thresholds=THRESHOLDS)
            width, height = truth.rows.sizes[int(row)]
            side = 224 if score is None else len(score)
            outcomes = outcomes_of(own, standard_boxes(boxes, (int(width), int(height)), side=side))
            np.add.at(self.counts, (outcomes, np.arange(THRESHOLDS)), 1)

    def result(self, tau: float | None) -> dict[str, Any]:
        """Shares of all scored rows at `tau`, else at the threshold that leaves most rows right; None without rows."""
        rows = int(self.counts[:, 0].sum())
        if not rows:
            return {"errors": None}
        right = self.counts[OUTCOMES.index("right")]
        place = int(right.argmax()) if tau is None else nearest_threshold(tau, THRESHOLDS)
        shares = {name: float(count) / rows for name, count in zip(OUTCOMES, self.counts[:, place], strict=True)}
        return {"errors": {**shares, **{name: shares[outcome] for name, outcome in NAMED.items()}}}


class ValueHistograms(MapFigure):
    """Shares of pixels by value of the framed map, inside and outside of the boxes (or masks, without a box)."""

    def __init__(self) -> None:
        self.counts = np.zeros((2, BINS), np.int64)  # outside, inside

    def add(self, batch: FramedBatch, truth: Truth) -> None:
        """Count a batch of maps; rows without an object or a map have nothing to tell apart."""
        for score, row, silent in zip(batch.framed, batch.rows, batch.objectless, strict=True):
            inside = None if score is None or silent else _inside(truth, int(row), len(score))
            if score is None or inside is None:
                continue
            bins = np.minimum((score * BINS).astype(np.int64), BINS - 1) + BINS * inside
            self.counts += np.bincount(bins.ravel(), minlength=2 * BINS).reshape(2, BINS)

    def result(self, tau: float | None) -> dict[str, Any]:  # noqa: ARG002 - values have no threshold
        """Shares of each kind of pixel in ten bins from 0 to 1; None where no row could be counted."""
        if not self.counts.any():
            return {"values_inside": None, "values_outside": None}
        outside, inside = (self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)).tolist()
        return {"values_inside": inside, "values_outside": outside}


def _inside(truth: Truth, row: int, side: int) -> Array | None:
    boxes = truth.boxes(row)
    if not len(boxes):
        mask = truth.mask(row, side)
        return None if mask is None or not mask[0].any() else mask[0].astype(np.int64)
    width, height = (float(edge) for edge in truth.rows.sizes[row])
    found = np.zeros((side, side), np.int64)
    for x0, y0, x1, y1 in boxes * side / np.array([width, height, width, height]):
        found[int(y0) : max(int(y0) + 1, round(y1)), int(x0) : max(int(x0) + 1, round(x1))] = 1
    return found
