"""Error dissection of localizations, and figures of single boxes or peaks: pointing game, CorLoc.

Error dissection follows TS-CAM (Gao et al., ICCV 2021) as used by DiPS. In order: the class is wrong; else IoU above
0.5 is right; *multi-instance* if the box covers more than 0.3 of two or more ground-truth boxes; then, of the object
that the box fits best (highest IoU), *part* if more than half of the box lies in it (LPE counts these), *more* if at
least 0.7 of it lies in the box (LME); else wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.maps.levels import peak
from wsolpipe.metrics.boxes import as_boxes, box_areas, intersections
from wsolpipe.metrics.maxbox import STANDARD, Convention, box_at_level, taus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Outcome = Literal["right", "wrong class", "multi-instance", "part", "more", "wrong"]
    CorLocThreshold = Literal["pooled", "class-oracle"]

OUTCOMES = ("right", "wrong class", "multi-instance", "part", "more", "wrong")
#: Outcomes that papers know by a name.
NAMED = {"LPE": "part", "LME": "more", "MIE": "multi-instance"}


def dissect(
    box: ArrayLike, truth: ArrayLike, *, class_right: bool = True, inclusive: bool = True, iou: float = 0.5
) -> Outcome:
    """Classify the error of one predicted box.

    Parameters
    ----------
    box : array_like [4]
        The predicted box. Papers take the box at the threshold that suits the image best, an oracle that leaves few
        errors; take the box at one chosen threshold (``largest_box``) for honest figures.
    truth : array_like [M, 4]
        Ground-truth boxes, M at least 1.
    class_right : bool
        Whether the predicted class is right.
    inclusive : bool
        Both edges of boxes are pixels of them, as in the standard evaluator.
    iou : float
        IoU above which the box is right.

    Raises
    ------
    DataError
        If there is no ground truth.
    """
    targets = as_boxes(truth)
    if not len(targets):
        msg = "an error can only be dissected where there is ground truth"
        raise DataError(msg)
    if not class_right:
        return "wrong class"
    place = int(outcomes_of(np.asarray(box)[None], targets, inclusive=inclusive, iou=iou)[0])
    return cast("Outcome", OUTCOMES[place])


def outcomes_of(boxes: ArrayLike, truth: ArrayLike, *, inclusive: bool = True, iou: float = 0.5) -> NDArray[np.int64]:
    """Return the outcome of `dissect` for many boxes [N, 4] of one image, as places in ``OUTCOMES`` (int64 [N])."""
    targets, found = as_boxes(truth), as_boxes(boxes)
    overlap = intersections(found, targets, inclusive=inclusive)  # [N, M]
    areas, own = box_areas(targets, inclusive=inclusive), box_areas(found, inclusive=inclusive)[:, None]
    union = np.maximum(areas + own - overlap, 1e-12)
    best = (overlap / union).argmax(axis=1)
    rows = np.arange(len(found))
    of_truth, of_box = overlap / np.maximum(areas, 1e-12), overlap / np.maximum(own, 1e-12)
    cases = [
        (overlap / union)[rows, best] > iou,
        (of_truth > 0.3).sum(axis=1) > 1,
        of_box[rows, best] > 0.5,
        of_truth[rows, best] >= 0.7,
    ]
    places = [OUTCOMES.index(name) for name in ("right", "multi-instance", "part", "more")]
    return np.asarray(np.select(cases, places, OUTCOMES.index("wrong")), np.int64)


def dissection(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the share of each outcome, with LPE, LME and MIE as names of three of them; empty without rows."""
    if not outcomes:
        return {}
    shares = {name: outcomes.count(name) / len(outcomes) for name in OUTCOMES}
    return {**shares, **{name: shares[outcome] for name, outcome in NAMED.items()}}


def pointing_hit(score: ArrayLike, truth: ArrayLike, *, tolerance: float = 0.0) -> bool:
    """Return whether the highest pixel's centre lies in a ground-truth box (Zhang et al., ECCV 2016, "pointing game").

    Parameters
    ----------
    score : float [H, W]
    truth : array_like [M, 4]
        Half-open boxes in map pixels.
    tolerance : float
        Distance in pixels by which boxes are widened (the original allows 15).
    """
    targets = as_boxes(truth)
    near, far = targets[:, :2] - tolerance, targets[:, 2:] + tolerance
    point = peak(score)
    return bool(((near <= point) & (point < far)).all(axis=1).any())


def points_in_boxes(points: ArrayLike, boxes: ArrayLike) -> NDArray[np.bool_]:
    """Return which of N points (x, y) lie in which of M half-open boxes (bool [N, M])."""
    xy, targets = np.asarray(points, dtype=np.float64).reshape(-1, 1, 2), as_boxes(boxes)
    return np.asarray(((targets[:, :2] <= xy) & (xy < targets[:, 2:])).all(axis=2))


def corloc(correct: ArrayLike, labels: Sequence[int], *, threshold: CorLocThreshold = "pooled") -> dict[str, object]:
    """Return CorLoc: the share of images whose box (largest contour) reaches IoU 0.5, in per cent.

    Parameters
    ----------
    correct : bool [N, T]
        Whether each image is right at each threshold (``iou_curves(...) >= 0.5``).
    labels : sequence of N int
        Class of each image.
    threshold : "pooled" or "class-oracle"
        See ``corloc_of``.
    """
    right, classes = np.asarray(correct, dtype=np.bool_), np.asarray(labels)
    if right.ndim != 2 or len(right) != len(classes) or not len(classes):
        msg = f"correct must have the shape [N, T], N = {len(classes)} labels, N at least 1, not {list(right.shape)}"
        raise DataError(msg)
    known = [int(label) for label in np.unique(classes)]
    counts = {label: right[classes == label].sum(axis=0) for label in known}
    return corloc_of(counts, {label: int((classes == label).sum()) for label in known}, threshold=threshold)


def corloc_of(
    counts: Mapping[int, NDArray[np.int64]],
    rows: Mapping[int, int],
    *,
    threshold: CorLocThreshold = "pooled",
    tau: float | None = None,
) -> dict[str, object]:
    """Return CorLoc in per cent from each class's correct images at each threshold and its number of images.

    Parameters
    ----------
    counts : {label: int64 [T]}
    rows : {label: int}
    threshold : "pooled" or "class-oracle"
        One threshold for all classes, the best of the pooled curve; or, as an option that is an *oracle*, the best for
        each class by itself, chosen on the very images it is reported on (some released code does this).
    tau : float, optional
        One threshold chosen beforehand, instead of the best of the pooled curve; not with "class-oracle".

    Returns
    -------
    dict
        ``pooled`` (share over images), ``mean`` (mean over classes), ``per_class`` {label: per cent}, ``tau`` (one, or
        {label: tau}), ``threshold`` and ``oracle``, which says whether each class had its own.
    """
    oracle = threshold == "class-oracle"
    total = sum(counts.values(), start=np.zeros(1, np.int64))
    levels, place = taus(len(total)), int(total.argmax())
    if tau is not None:
        place = min(round(tau * len(total)), len(total) - 1)
    at = {label: int(curve.argmax()) if oracle else place for label, curve in counts.items()}
    shares = {label: 100 * float(curve[at[label]]) / rows[label] for label, curve in counts.items()}
    return {
        "pooled": float(np.average(list(shares.values()), weights=[rows[label] for label in shares]))
        if shares
        else None,
        "mean": float(np.mean(list(shares.values()))) if shares else None,
        "per_class": shares,
        "tau": {label: float(levels[chosen]) for label, chosen in at.items()} if oracle else float(levels[place]),
        "threshold": threshold,
        "oracle": oracle,
    }


def classification_accuracy(predicted: ArrayLike, labels: Sequence[int], *, k: int = 1) -> float:
    """Return the share (per cent) of rows whose label is among the first k of ``predicted`` int [N, K]."""
    top, truth = np.asarray(predicted).reshape(len(labels), -1), np.asarray(labels)
    return 100 * float((top[:, :k] == truth[:, None]).any(axis=1).mean()) if len(truth) else float("nan")


def true_negatives(silent: Sequence[bool], objectless: Sequence[bool]) -> dict[str, float | int | None]:
    """Return true negatives and false positives of rows whose class has no object.

    Parameters
    ----------
    silent : sequence of N bool
        No object was reported: no box, or the predicted class is one without an object.
    objectless : sequence of N bool
        The row's class has no object.
    """
    said, truth = np.asarray(silent, dtype=np.bool_), np.asarray(objectless, dtype=np.bool_)
    negatives, positives = int(truth.sum()), int((~truth).sum())
    return {
        "true_negatives": int((said & truth).sum()),
        "false_positives": int((~said & truth).sum()),
        "specificity": float(said[truth].mean()) if negatives else None,
        "missed": float(said[~truth].mean()) if positives else None,
    }


def otsu_box(score: ArrayLike, *, convention: Convention = STANDARD) -> NDArray[np.float64]:
    """Return the box [4] of the largest contour above the map's own Otsu level: no threshold to choose.

    The threshold-free fallback of the realistic protocol; reported to under-estimate.
    """
    from wsolpipe.maps.foreground import otsu_threshold

    levels = (np.asarray(score, dtype=np.float64) * 255).astype(np.uint8)
    return box_at_level(score, otsu_threshold(levels), convention=convention)
