"""All box figures of score maps, streamed: add maps as they come, merge what workers counted, read the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.metrics.boxes import FIXED_POINT, LEVELS, as_boxes
from wsolpipe.metrics.localization import corloc_of
from wsolpipe.metrics.maxbox import STANDARD, Convention, iou_curves, taus
from wsolpipe.metrics.pixels import nearest_threshold
from wsolpipe.metrics.scaling import unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from wsolpipe.metrics.maxbox import Contours

    Counts = NDArray[np.int64]
    Curves = NDArray[np.float64]

_MODES: tuple[Contours, ...] = ("largest", "all")
_ROWS = (
    "rows",
    "rows_without_box",
    "rows_missing",
    "rows_unusable",
    "rows_objectless",
    "rows_with_prediction",
    "right_top1",
    "right_top5",
    "rows_with_one_prediction",
    "rows_judged",
    "right_judged",
)


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
    observer : callable, optional
        Called with ``"largest"`` or ``"all"``, the places (int64 [n]) of the scored rows in the call and their curves
        of IoU (float64 [n, thresholds]), for what needs single rows: intervals, histograms.
    """

    thresholds: int = 1000
    convention: Convention = STANDARD
    labels: str = "true"
    classes: bool = False
    threads: int | None = None
    observer: Callable[[str, Counts, NDArray[np.float64]], None] | None = None
    rows: int = 0
    rows_without_box: int = 0
    rows_missing: int = 0
    rows_unusable: int = 0
    rows_objectless: int = 0
    rows_with_prediction: int = 0
    right_top1: int = 0
    right_top5: int = 0
    rows_with_one_prediction: int = 0
    rows_judged: int = 0
    right_judged: int = 0
    _curves: dict[str, Counts] = field(default_factory=dict)
    _class_rows: dict[int, int] = field(default_factory=dict)

    def add(
        self,
        maps: Sequence[ArrayLike | None],
        boxes: Sequence[ArrayLike],
        *,
        truth: Sequence[int] | None = None,
        predicted: ArrayLike | None = None,
        objectless: Sequence[bool] | None = None,
        of_truth: Mapping[int, ArrayLike | None] | None = None,
        swept: Mapping[Contours, ArrayLike] | None = None,
        flawed: Sequence[bool] | None = None,
    ) -> None:
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
        swept : mapping of "largest" and "all" to float64 [N, thresholds], optional
            Curves of IoU of these maps and boxes where they are known already (``iou_curves_of``).
        flawed : sequence of N bool, optional
            Maps that are constant or hold NaN, needed with ``swept``: then the maps themselves are not looked at.
        """
        if len(maps) != len(boxes):
            msg = f"{len(maps)} maps but {len(boxes)} sets of boxes: one set an image, possibly empty"
            raise DataError(msg)
        if truth is None and (predicted is not None or self.classes):
            msg = "Top-k localization and CorLoc need the true classes: pass truth="
            raise DataError(msg)
        top = None if predicted is None else np.asarray(predicted).reshape(len(maps), -1)
        targets = [as_boxes(each) for each in boxes]
        silent = np.zeros(len(maps), np.bool_) if objectless is None else np.asarray(objectless, dtype=np.bool_)
        scored = [row for row in range(len(maps)) if len(targets[row]) and not silent[row]]
        self.rows += len(maps)
        self.rows_objectless += int(silent.sum())
        self.rows_without_box += len(maps) - len(scored) - int(silent.sum())
        hits: dict[str, NDArray[np.bool_]] = {}
        if top is not None and truth is not None:
            hits = self._count_ranks(top, np.asarray(truth))
            self.rows_judged += int((np.asarray(truth)[scored] >= 0).sum())
            self.right_judged += int(hits["top1"][scored].sum())
        if not scored:
            return
        stack = np.zeros((0, 0, 0))
        if swept is None or flawed is None:
            stack = self._filled([maps[row] for row in scored])
        else:
            self.rows_missing += sum(maps[row] is None for row in scored)
            self.rows_unusable += sum(flawed[row] for row in scored if maps[row] is not None)
        others = [row for row in scored if row in (of_truth or {})]
        for mode in _MODES:
            if swept is None:
                curves = self._curves_of(mode, stack, [targets[row] for row in scored])
            else:
                curves = np.asarray(swept[mode])[scored]
            known = None if truth is None else np.asarray(truth)[scored]
            self._count(mode, curves, known)
            if hits:
                own = curves
                if others and of_truth is not None:
                    own = curves.copy()
                    filled = _without_nan(_stacked([of_truth[row] for row in others])[0])
                    own[np.searchsorted(scored, others)] = self._curves_of(
                        mode, filled, [targets[row] for row in others]
                    )
                self._count_top(mode, own, {name: hit[scored] for name, hit in hits.items()})
            if self.observer is not None:
                self.observer(mode, np.array(scored, np.int64), curves)

    def _count_ranks(self, top: NDArray[np.int64], truth: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
        """Rows whose true class is the first prediction, and where several are known, among the first five."""
        known = truth >= 0
        among = (top[:, :5] == truth[:, None]) & known[:, None]
        self.rows_with_prediction += int(known.sum())
        self.right_top1 += int(among[:, 0].sum())
        self.right_top5 += int(among.any(axis=1).sum())
        if top.shape[1] == 1:
            self.rows_with_one_prediction += int(known.sum())
            return {"top1": among[:, 0]}
        return {"top1": among[:, 0], "top5": among.any(axis=1)}

    def _curves_of(self, mode: Contours, maps: NDArray[np.float64], boxes: list[NDArray[np.float64]]) -> Curves:
        return iou_curves(
            maps, boxes, thresholds=self.thresholds, contours=mode, convention=self.convention, threads=self.threads
        )

    def _filled(self, maps: list[ArrayLike | None]) -> NDArray[np.float64]:
        stack, missing = _stacked(maps)
        self.rows_missing += int(missing.sum())
        self.rows_unusable += int((unusable(stack) & ~missing).sum())
        return _without_nan(stack)

    def _count(self, mode: str, curves: Curves, truth: NDArray[np.int64] | None) -> None:
        self._sum(f"{mode} iou", np.rint(curves * FIXED_POINT).astype(np.int64).sum(axis=0))
        for level in LEVELS:
            self._sum(f"{mode} {level}", (curves >= level).sum(axis=0))
        if self.classes and truth is not None and mode == "largest":
            for label in np.unique(truth):
                self._sum(f"class {int(label)}", (curves[truth == label] >= 0.5).sum(axis=0))
                self._class_rows[int(label)] = self._class_rows.get(int(label), 0) + int((truth == label).sum())

    def _count_top(self, mode: str, curves: Curves, hits: dict[str, NDArray[np.bool_]]) -> None:
        """Count rows whose rank is good enough and whose true class's map gives a right box."""
        for level in LEVELS:
            for name, hit in hits.items():
                self._sum(f"{mode} {level} {name}", (curves[hit] >= level).sum(axis=0))

    def _sum(self, name: str, counts: Counts) -> None:
        self._curves[name] = self._curves.get(name, np.zeros(self.thresholds, np.int64)) + counts

    def merge(self, other: MaxBoxEvaluation) -> None:
        """Add what another accumulator counted."""
        mine = (self.thresholds, self.convention, self.labels, self.classes)
        theirs = (other.thresholds, other.convention, other.labels, other.classes)
        if mine != theirs:
            msg = f"accumulators of different settings cannot be merged: {mine} and {theirs}"
            raise DataError(msg)
        for name in _ROWS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, counts in other._curves.items():
            self._sum(name, counts)
        for label, count in other._class_rows.items():
            self._class_rows[label] = self._class_rows.get(label, 0) + count

    @property
    def rows_scored(self) -> int:
        """Rows with ground truth: the denominator."""
        return self.rows - self.rows_without_box - self.rows_objectless

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
        counted = self.rows_with_prediction
        return {
            **{name: getattr(self, name) for name in _ROWS[:5]},
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
            "accuracy_top1": 100 * self.right_top1 / counted if counted else None,
            "accuracy_top5": 100 * self.right_top5 / counted if counted and not self.rows_with_one_prediction else None,
            "CL": 100 * self.right_judged / self.rows_judged if self.rows_judged else None,
            "labels": self.labels,
            "convention": self.convention.name,
            **({"CorLoc": self.corloc(tau=tau)} if self.classes and scored else {}),
        }

    def corloc(self, *, class_oracle: bool = False, tau: float | None = None) -> dict[str, object]:
        """Return CorLoc (per cent) pooled, as mean over classes and per class; see ``localization.corloc_of``."""
        counts = {label: self._curves[f"class {label}"] for label in sorted(self._class_rows)}
        return corloc_of(counts, self._class_rows, threshold="class-oracle" if class_oracle else "pooled", tau=tau)


def _stacked(maps: list[ArrayLike | None]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Maps [N, H, W] with zeros for missing ones, and which are missing."""
    shapes = {np.shape(score) for score in maps if score is not None}
    if len(shapes) > 1:
        msg = f"the maps of one call must share one size, not {sorted(shapes)}"
        raise DataError(msg, hint="bring them into one frame first, e.g. with wsolpipe.metrics.standard_maps")
    empty = np.zeros(shapes.pop() if shapes else (1, 1))
    missing = np.array([score is None for score in maps])
    return np.stack([empty if score is None else np.asarray(score, dtype=np.float64) for score in maps]), missing


def _without_nan(stack: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isnan(stack).any(axis=(1, 2), keepdims=True), 0.0, stack)
