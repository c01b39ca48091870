"""All box figures of score maps, streamed: add maps as they come, merge what workers counted, read the result."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.metrics.boxes import FIXED_POINT, LEVELS, as_boxes
from wsolpipe.metrics.localization import corloc_of
from wsolpipe.metrics.maxbox import STANDARD, Contours, Convention, iou_curves, taus
from wsolpipe.metrics.pixels import nearest_threshold
from wsolpipe.metrics.scaling import unusable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Flags = NDArray[np.bool_]
    Counts = NDArray[np.int64]
    Curves = NDArray[np.float64]

MODES: tuple[Contours, ...] = ("largest", "all")
#: Counts of rows that a result holds.
_ROWS = ("rows", "rows_without_box", "rows_missing", "rows_unusable", "rows_objectless")


class Swept(NamedTuple):
    """Curves of a batch that are known already.

    Attributes
    ----------
    curves : mapping of "largest" and "all" to float64 [N, thresholds]
        IoU of these maps with these boxes (``iou_curves_of``).
    flawed : bool [N]
        Maps that are constant or hold NaN.
    """

    curves: Mapping[Contours, ArrayLike]
    flawed: ArrayLike


@dataclass
class MaxBoxEvaluation:
    """MaxBoxAcc, MaxBoxAccV2, IoU, Top-1/Top-5 localization, accuracy and CorLoc of score maps.

    Nothing is dropped silently. Rows without ground truth are outside the denominators and counted in
    ``rows_without_box``, those of object-less classes in ``rows_objectless``. A missing map is an empty one: it scores
    the box (0, 0, 0, 0) at every threshold and is counted in ``rows_missing``; so is, in ``rows_unusable``, a map that
    is constant or holds NaN, which ``minmax`` turns into zeros.

    Sums are integers (IoU in steps of 2**-40), so merging in any order gives the same bits.

    Parameters
    ----------
    thresholds : int
    convention : Convention
    labels : str
        Whose class the maps are of, ``"true"`` or ``"predicted"``; stated in the result.
    classes : bool
        Keep a curve a class, for CorLoc (memory grows with the number of classes, never with that of images).
    threads : int, optional
        Threads that share the images of one call.
    """

    thresholds: int = 1000
    convention: Convention = STANDARD
    labels: str = "true"
    classes: bool = False
    threads: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    _curves: dict[str, Counts] = field(default_factory=dict)

    def add(
        self,
        maps: Sequence[ArrayLike | None],
        boxes: Sequence[ArrayLike],
        *,
        truth: Sequence[int] | None = None,
        predicted: ArrayLike | None = None,
        objectless: Sequence[bool] | None = None,
        of_truth: Mapping[int, ArrayLike | None] | None = None,
        swept: Swept | None = None,
    ) -> tuple[Counts, dict[Contours, Curves]]:
        """Count a batch of rows.

        Parameters
        ----------
        maps : sequence of N float [H, W], or None where a map is missing
            Score maps in [0, 1] in the frame of the boxes (``standard_maps``); all of one size.
        boxes : sequence of N [M, 4]
            Ground-truth boxes in map pixels (``standard_boxes``); M = 0 is legal.
        truth : sequence of N int, optional
            True classes, needed with ``predicted`` or ``classes``.
        predicted : int [N, K], optional
            Predicted classes, best first. One class a row gives Top-1 figures only; for those of Top-5, K is 5 or the
            number of classes. Rows whose true class is negative (unknown) have no rank and are not counted by it.
        objectless : sequence of N bool, optional
            Rows whose class has no object.
        of_truth : mapping of int to float [H, W] or None, optional
            By position in the batch, the map of the row's true class where ``maps`` holds that of another class: Top-k
            localization is right where the true class is among the first k predictions and *its* map gives a right
            box (Russakovsky et al., IJCV 2015, section 4.2). Rows that are not named have one map for both.
        swept : Swept, optional
            Curves of these maps where they are known already; then the maps themselves are not looked at.

        Returns
        -------
        places : int64 [n]
            Positions in the batch of the rows that are scored.
        curves : mapping of "largest" and "all" to float64 [n, thresholds]
            Their IoU at each threshold.

        Raises
        ------
        DataError
            If the numbers of maps and boxes differ, maps are of several sizes, or true classes are missing.
        """
        if len(maps) != len(boxes):
            msg = f"{len(maps)} maps but {len(boxes)} sets of boxes: one set an image, possibly empty"
            raise DataError(msg)
        if truth is None and (predicted is not None or self.classes):
            msg = "Top-k localization and CorLoc need the true classes: pass truth="
            raise DataError(msg)
        targets, known = [as_boxes(each) for each in boxes], None if truth is None else np.asarray(truth)
        silent = np.zeros(len(maps), np.bool_) if objectless is None else np.asarray(objectless, dtype=np.bool_)
        scored = np.flatnonzero(np.array([len(each) > 0 for each in targets], np.bool_) & ~silent)
        self.counts["rows"] += len(maps)
        self.counts["rows_objectless"] += int(silent.sum())
        self.counts["rows_without_box"] += len(maps) - len(scored) - int(silent.sum())
        hits = {}
        if predicted is not None and known is not None:
            hits = self._count_ranks(np.asarray(predicted).reshape(len(maps), -1), known)
            self.counts["rows_judged"] += int((known[scored] >= 0).sum())
            self.counts["right_judged"] += int(hits["top1"][scored].sum())
        if not len(scored):
            return scored, {}
        curves = self._sweep(maps, targets, scored, swept)
        own = curves
        if hits and of_truth:
            own = self._replaced(
                curves, scored, targets, {at: of_truth[at] for at in scored.tolist() if at in of_truth}
            )
        for mode in MODES:
            self._count(mode, curves[mode], None if known is None else known[scored])
            for name, hit in hits.items():
                for level in LEVELS:
                    self._sum(f"{mode} {level} {name}", (own[mode][hit[scored]] >= level).sum(axis=0))
        return scored, curves

    def _count_ranks(self, top: Counts, truth: Counts) -> dict[str, Flags]:
        """Rows whose true class is the first prediction, and where several are known, among the first five."""
        known = truth >= 0
        among = (top[:, :5] == truth[:, None]) & known[:, None]
        hits = {"top1": among[:, 0], "top5": among.any(axis=1)}
        self.counts["rows_with_prediction"] += int(known.sum())
        self.counts["right_top1"] += int(hits["top1"].sum())
        self.counts["right_top5"] += int(hits["top5"].sum())
        if top.shape[1] == 1:
            self.counts["rows_with_one_prediction"] += int(known.sum())
            del hits["top5"]
        return hits

    def _sweep(
        self, maps: Sequence[ArrayLike | None], boxes: Sequence[Curves], scored: Counts, swept: Swept | None
    ) -> dict[Contours, Curves]:
        """Curves of the scored rows; rows without a usable map are counted."""
        missing = np.array([maps[row] is None for row in scored])
        self.counts["rows_missing"] += int(missing.sum())
        if swept is not None:
            self.counts["rows_unusable"] += int((np.asarray(swept.flawed)[scored] & ~missing).sum())
            return {mode: np.asarray(swept.curves[mode])[scored] for mode in MODES}
        stack = _stacked([maps[row] for row in scored])
        self.counts["rows_unusable"] += int((unusable(stack) & ~missing).sum())
        return self._curves_of(stack, [boxes[row] for row in scored])

    def _curves_of(self, stack: Curves, boxes: list[Curves]) -> dict[Contours, Curves]:
        filled = np.where(np.isnan(stack).any(axis=(1, 2), keepdims=True), 0.0, stack)
        options = {"thresholds": self.thresholds, "convention": self.convention, "threads": self.threads}
        return {mode: iou_curves(filled, boxes, contours=mode, **options) for mode in MODES}  # type: ignore[arg-type]

    def _replaced(
        self,
        curves: dict[Contours, Curves],
        scored: Counts,
        boxes: Sequence[Curves],
        others: Mapping[int, ArrayLike | None],
    ) -> dict[Contours, Curves]:
        """The curves of the scored rows, with those of `others`, by position, in the place of the maps' own."""
        if not others:
            return curves
        found = self._curves_of(_stacked(list(others.values())), [boxes[at] for at in others])
        made = {mode: curve.copy() for mode, curve in curves.items()}
        for mode, curve in found.items():
            made[mode][np.searchsorted(scored, list(others))] = curve
        return made

    def _count(self, mode: Contours, curves: Curves, truth: Counts | None) -> None:
        self._sum(f"{mode} iou", np.rint(curves * FIXED_POINT).astype(np.int64).sum(axis=0))
        for level in LEVELS:
            self._sum(f"{mode} {level}", (curves >= level).sum(axis=0))
        if self.classes and truth is not None and mode == "largest":
            for label in np.unique(truth):
                self._sum(f"class {int(label)}", (curves[truth == label] >= 0.5).sum(axis=0))
                self.counts[f"class {int(label)}"] += int((truth == label).sum())

    def _sum(self, name: str, counts: Counts) -> None:
        self._curves[name] = self._curves.get(name, np.zeros(self.thresholds, np.int64)) + counts

    def merge(self, other: MaxBoxEvaluation) -> None:
        """Add what another accumulator counted."""
        mine = (self.thresholds, self.convention, self.labels, self.classes)
        theirs = (other.thresholds, other.convention, other.labels, other.classes)
        if mine != theirs:
            msg = f"accumulators of different settings cannot be merged: {mine} and {theirs}"
            raise DataError(msg)
        self.counts.update(other.counts)
        for name, counts in other._curves.items():
            self._sum(name, counts)

    @property
    def rows_scored(self) -> int:
        """Rows with ground truth: the denominator."""
        return self.counts["rows"] - self.counts["rows_without_box"] - self.counts["rows_objectless"]

    def curve(self, name: str) -> NDArray[np.float64]:
        """Return a curve as shares of the scored rows (float64 [thresholds]).

        Names: ``"largest iou"``, ``"largest 0.5"``, ``"all 0.3"``, ``"all 0.5 top1"``, ``"largest 0.5 top5"`` …
        """
        scale = FIXED_POINT if name.endswith(" iou") else 1
        return self._curves.get(name, np.zeros(self.thresholds, np.int64)) / scale / max(self.rows_scored, 1)

    def curve_rows(self) -> list[dict[str, float]]:
        """Return all curves as rows of a table, one a threshold, for CSV: shares 0..1 under their names."""
        names = sorted(name for name in self._curves if not name.startswith("class "))
        columns = {name: self.curve(name) for name in names}
        return [
            {"tau": float(tau), **{name: float(column[place]) for name, column in columns.items()}}
            for place, tau in enumerate(taus(self.thresholds))
        ]

    def best_tau(self, *, level: float = 0.5, contours: Contours = "largest") -> float:
        """Return the (first) threshold at which most boxes are correct: to be carried to another split."""
        return float(taus(self.thresholds)[int(self.curve(f"{contours} {level}").argmax())])

    def result(self, *, tau: float | None = None) -> dict[str, object]:
        """Return the figures: scores in per cent, IoU as fractions, None where no row could be scored.

        Parameters
        ----------
        tau : float, optional
            Threshold chosen beforehand, e.g. on validation pseudo-boxes; without it every figure takes its own best
            threshold of these very images, as the field's evaluator does, and ``tau`` is that of MaxBoxAcc.
        """
        scored = self.rows_scored
        place = None if tau is None else nearest_threshold(tau, self.thresholds)

        def score(name: str, scale: float = 100.0) -> float | None:
            if not scored or name not in self._curves:
                return None
            curve = self.curve(name)
            return scale * float(curve.max() if place is None else curve[place])

        def over_levels(suffix: str) -> dict[str, float | None]:
            values = {f"{level * 100:g}": score(f"all {level}{suffix}") for level in LEVELS}
            known = [value for value in values.values() if value is not None]
            return {**values, "mean": float(np.mean(known)) if known else None}

        at = self.best_tau() if place is None else float(taus(self.thresholds)[place])
        mean_iou = self.curve("largest iou")
        counted, judged = self.counts["rows_with_prediction"], self.counts["rows_judged"]
        several = counted and not self.counts["rows_with_one_prediction"]
        return {
            **{name: self.counts[name] for name in _ROWS},
            "rows_scored": scored,
            "MaxBoxAcc": score("largest 0.5"),
            "MaxBoxAccV2": over_levels(""),
            "MaxBoxAcc_area": 100 * float(self.curve("largest 0.5").mean()) if scored else None,
            "iou": score("largest iou", 1.0),
            "iou_at_tau": float(mean_iou[nearest_threshold(at, self.thresholds)]) if scored else None,
            "tau": at if scored else None,
            "tau_from": "these images" if tau is None else "given",
            "top1_loc": score("largest 0.5 top1"),
            "top5_loc": score("largest 0.5 top5"),
            "top1_loc_v2": over_levels(" top1"),
            "top5_loc_v2": over_levels(" top5"),
            "accuracy_top1": 100 * self.counts["right_top1"] / counted if counted else None,
            "accuracy_top5": 100 * self.counts["right_top5"] / counted if several else None,
            "CL": 100 * self.counts["right_judged"] / judged if judged else None,
            "labels": self.labels,
            "convention": self.convention.name,
            **({"CorLoc": self.corloc(tau=tau)} if self.classes and scored else {}),
        }

    def corloc(self, *, class_oracle: bool = False, tau: float | None = None) -> dict[str, object]:
        """Return CorLoc (per cent) pooled, as mean over classes and per class; see ``localization.corloc_of``."""
        labels = sorted(int(name.removeprefix("class ")) for name in self.counts if name.startswith("class "))
        curves = {label: self._curves[f"class {label}"] for label in labels}
        rows = {label: self.counts[f"class {label}"] for label in labels}
        return corloc_of(curves, rows, threshold="class-oracle" if class_oracle else "pooled", tau=tau)


def _stacked(maps: list[ArrayLike | None]) -> Curves:
    """Maps [N, H, W] with zeros for missing ones."""
    shapes = {np.shape(score) for score in maps if score is not None}
    if len(shapes) > 1:
        msg = f"the maps of one call must share one size, not {sorted(shapes)}"
        raise DataError(msg, hint="bring them into one frame first, e.g. with wsolpipe.metrics.standard_maps")
    empty = np.zeros(shapes.pop() if shapes else (1, 1))
    return np.stack([empty if score is None else np.asarray(score, dtype=np.float64) for score in maps])
