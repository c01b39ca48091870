"""PxAP: pixel-wise average precision of score maps against masks, and pixel figures at a threshold.

Definition (Choe et al., CVPR 2020, section 4.2, and the authors' evaluator): foreground and background scores of all
images are pooled into histograms with the edges ``tau_0 … tau_n-1, 1, 2, 3``; precision and recall accumulate from the
top bin down; the area adds ``(R_i - R_i-1) * P_i`` from the second point on, without interpolation, where the precision
is defined. A perfect map gives 100, a constant map the share of foreground pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.metrics.maxbox import taus

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]


def pixel_histograms(
    score: ArrayLike, mask: ArrayLike, ignore: ArrayLike | None = None, *, thresholds: int = 1000
) -> Counts:
    """Return how many background and foreground pixels of one image fall into each score bin.

    Parameters
    ----------
    score : float [H, W]
        Score map in [0, 1].
    mask : bool or number [H, W]
        Foreground where it is above 0.5.
    ignore : bool or number [H, W], optional
        Pixels that count for nothing where it is above 0.5, unless they are foreground.
    thresholds : int

    Returns
    -------
    int64 [2, thresholds + 2]
        Background, foreground.

    Raises
    ------
    DataError
        If shapes differ, or a score is NaN or outside [0, 1].
    """
    from wsolpipe.metrics.pixel_loops import count_pixels  # numba: only those who count wait for it

    scores = np.ascontiguousarray(score)
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float64)
    truth = _flags(mask, scores, "mask")
    skipped = _flags(ignore, scores, "ignore mask") if ignore is not None else np.zeros((0, 0), np.bool_)
    counts = np.zeros((2, thresholds + 2), np.int64)
    if not count_pixels(scores, truth, skipped, _edges(thresholds), counts):
        problem = "holds NaN" if np.isnan(scores).any() else f"leaves [0, 1]: {scores.min():g} to {scores.max():g}"
        msg = f"score map {problem}"
        raise DataError(msg, hint="normalise it first, e.g. with wsolpipe.metrics.minmax, which turns NaN into zeros")
    return counts


def _flags(values: ArrayLike, scores: NDArray[np.floating], what: str) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.shape != scores.shape or array.ndim != 2:
        msg = f"{what} has the shape {list(array.shape)}, the score map {list(scores.shape)}: want the same [H, W]"
        raise DataError(msg)
    return np.ascontiguousarray(array if array.dtype == np.bool_ else array > 0.5)


def _edges(thresholds: int) -> Floats:
    return np.append(taus(thresholds), [1.0, 2.0, 3.0])


def pxap_of(histograms: ArrayLike) -> Floats:
    """Return PxAP in per cent of pooled histograms [..., 2, bins] (background, foreground); NaN without foreground."""
    counts = np.asarray(histograms, dtype=np.float64)
    false, true = (np.cumsum(counts[..., kind, ::-1], axis=-1) for kind in (0, 1))
    total = true[..., -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = true / (true + false), true / total
        steps = np.where((true + false)[..., 1:] > 0, precision[..., 1:] * np.diff(recall, axis=-1), 0.0)
    return np.asarray(np.where(total[..., 0] > 0, 100.0 * steps.sum(axis=-1), np.nan))


def pxap(scores: ArrayLike, masks: ArrayLike, ignore: ArrayLike | None = None, *, thresholds: int = 1000) -> float:
    """Return the pixel-wise average precision of score maps in per cent.

    Parameters
    ----------
    scores : float [N, H, W]
        Score maps in [0, 1].
    masks : bool or number [N, H, W]
        Foreground where above 0.5.
    ignore : bool or number [N, H, W], optional
        Ignored where above 0.5 and not foreground.
    thresholds : int

    Returns
    -------
    float
        0..100; NaN where no image has a foreground pixel.

    Raises
    ------
    DataError
        If shapes differ, or a score is NaN or outside [0, 1].
    """
    evaluation = PixelEvaluation(thresholds=thresholds)
    total, truth = np.asarray(scores), np.asarray(masks)
    skipped = None if ignore is None else np.asarray(ignore)
    if total.ndim != 3 or total.shape != truth.shape or (skipped is not None and skipped.shape != total.shape):
        shapes = [list(part.shape) for part in (total, truth) + (() if skipped is None else (skipped,))]
        msg = f"scores, masks and ignore masks must share one shape [N, H, W], not {shapes}"
        raise DataError(msg)
    for row in range(len(total)):
        evaluation.add(total[row], truth[row], None if skipped is None else skipped[row])
    return float(pxap_of(evaluation.histograms))


@dataclass
class PixelEvaluation:
    """Pixel figures, image by image; memory does not grow and merging is exact.

    A missing map is an image of zeros everywhere; a row without a mask is counted in ``rows_without_mask`` and nowhere
    else; a row whose mask is empty (an object-less class) adds background pixels only.
    """

    thresholds: int = 1000
    rows: int = 0
    rows_without_mask: int = 0
    rows_missing: int = 0
    rows_objectless: int = 0
    histograms: Counts = field(default_factory=lambda: np.zeros((2, 0), np.int64))

    def __post_init__(self) -> None:
        if not self.histograms.size:
            self.histograms = np.zeros((2, self.thresholds + 2), np.int64)

    def add(self, score: ArrayLike | None, mask: ArrayLike | None, ignore: ArrayLike | None = None) -> None:
        """Count one image; see ``pixel_histograms``. ``None`` is a missing map or mask."""
        self.rows += 1
        if mask is None:
            self.rows_without_mask += 1
            return
        if score is None:
            self.rows_missing += 1
            score = np.zeros(np.shape(mask))
        counts = pixel_histograms(score, mask, ignore, thresholds=self.thresholds)
        self.rows_objectless += int(counts[1].sum() == 0)
        self.histograms = self.histograms + counts

    def merge(self, other: PixelEvaluation) -> None:
        """Add another accumulator's images."""
        if self.thresholds != other.thresholds:
            msg = f"accumulators of {self.thresholds} and {other.thresholds} thresholds cannot be merged"
            raise DataError(msg)
        for name in ("rows", "rows_without_mask", "rows_missing", "rows_objectless", "histograms"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def curves(self) -> dict[str, Floats]:
        """Return precision, recall and pooled IoU of ``score >= tau`` at each threshold (float64 [thresholds])."""
        false, true = (self.histograms[kind, ::-1].cumsum()[::-1][: self.thresholds].astype(float) for kind in (0, 1))
        total = float(self.histograms[1].sum())
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "tau": taus(self.thresholds),
                "precision": true / (true + false),
                "recall": true / total,
                "iou": np.nan_to_num(true / (false + total)),
            }

    def result(self, *, tau: float | None = None) -> dict[str, float | int | None]:
        """Return PxAP (per cent), the pooled pixel IoU (fraction) and its threshold.

        Parameters
        ----------
        tau : float, optional
            Threshold chosen beforehand; without it the one that maximises the IoU of these very images is taken.
        """
        iou = self.curves()["iou"]
        place = int(iou.argmax()) if tau is None else nearest_threshold(tau, self.thresholds)
        ap = float(pxap_of(self.histograms))
        background, foreground = self.histograms.sum(axis=1)
        kept = self.histograms[0, place:].sum()
        return {
            "rows": self.rows,
            "rows_scored": self.rows - self.rows_without_mask,
            "rows_without_mask": self.rows_without_mask,
            "rows_missing": self.rows_missing,
            "rows_objectless": self.rows_objectless,
            "PxAP": None if np.isnan(ap) else ap,
            "pixel_iou": float(iou[place]) if foreground else None,
            "true_negative_rate": float(1 - kept / background) if background else None,
            "tau": place / self.thresholds,
        }


def nearest_threshold(tau: float, thresholds: int) -> int:
    """Return the number of the threshold next to ``tau`` among 0, 1/n, 2/n … (the last one at most)."""
    if not 0.0 <= tau <= 1.0:
        msg = f"tau must be in [0, 1], not {tau}"
        raise DataError(msg)
    return min(round(tau * thresholds), thresholds - 1)
