"""Figures of a stage's boxes and of a centred box against boxes, and of boxes of video frames over time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.schema import Fallback, Status, Step
from wsolpipe.metrics.boxes import LEVELS, BoxEvaluation, best_iou, box_areas, centred_boxes, iou_per_box

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wsolpipe.contract.reader import Index, StageView
    from wsolpipe.evaluate.truth import Truth
    from wsolpipe.metrics.confidence import Values


Array = np.ndarray[Any, Any]
AT_ONCE = 4096


@dataclass(frozen=True)
class BoxScores:
    """Figures of boxes, and what each row adds to them.

    Attributes
    ----------
    figures : dict
        Of `wsolpipe.metrics.boxes.BoxEvaluation`, and ``rows_quarantined``: rows outside all other counts.
    rows : int64 array [n]
        Scored rows.
    ious : dict of str to float64 array [n]
        ``iou_top1``, ``iou_best5``, ``iou_candidates``, ``iou_upper`` and ``iou_centre`` of each scored row.
    """

    figures: dict[str, Any]
    rows: Array
    ious: dict[str, Array]

    def as_maps(self) -> dict[str, Any]:
        """Return the figures under the names and in the units of those of maps, for tables that hold both."""

        def share(name: str) -> float | None:
            value = self.figures.get(name)
            return None if value is None else 100 * value

        levels = {f"{100 * level:g}": share(f"box_maxboxacc_{100 * level:g}") for level in LEVELS}
        return {
            "MaxBoxAcc": share("recall50_top1"),
            "MaxBoxAccV2": {**levels, "mean": share("box_maxboxacc_v2")},
            "iou": self.figures["iou_top1"],
            "top1_loc": share("top1_loc"),
        }

    def values(self) -> dict[str, Array]:
        """Return the values of intervals and paired tests: one value of each figure a scored row."""
        top = self.ious["iou_top1"]
        shares = np.mean([top >= level for level in LEVELS], axis=0)
        named = {name: self.ious[name] for name in ("iou_top1", "iou_best5", "iou_centre")}
        return {**named, "recall50_top1": (top >= 0.5).astype(float), "box_maxboxacc_v2": shares}

    def map_values(self) -> Values:
        """Return what each row adds to the figures of `as_maps`."""
        own = self.values()
        found = {
            "MaxBoxAcc": 100 * own["recall50_top1"],
            "MaxBoxAccV2": 100 * own["box_maxboxacc_v2"],
            "iou": own["iou_top1"],
        }
        return {name: (self.rows, values) for name, values in found.items()}


def score_boxes(view: StageView, truth: Truth) -> BoxScores:
    """Score the boxes of every row of a stage that has a commit record and is not quarantined."""
    return score_blocks(_stored(view, truth), truth)


def score_centred(truth: Truth, left_out: Array | None = None) -> BoxScores:
    """Score a centred box of 0.8 of each side in every row.

    Parameters
    ----------
    left_out : bool array [N], optional
        Rows counted as quarantined; those whose image cannot be read by default.
    """
    rows = np.arange(len(truth.rows))
    boxes = centred_boxes(truth.rows.sizes.astype(np.float64))[:, None]
    return score_blocks([(rows, truth.rows.quarantined if left_out is None else left_out, boxes)], truth)


def score_blocks(blocks: Iterable[tuple[Array, Array, Array]], truth: Truth) -> BoxScores:
    """Score boxes block by block.

    Parameters
    ----------
    blocks : iterable of (int [B], bool [B], float [B, K, 4])
        Rows, which of them are quarantined, and their boxes, best first: half-open xyxy in pixels of the image, NaN
        where there is none.
    """
    found, quarantined = BoxEvaluation(), 0
    rows: list[Array] = [np.zeros(0, np.int64)]
    ious: list[dict[str, Array]] = []
    for numbers, bad, boxes in blocks:
        left = truth.rows.left[numbers]
        kept = np.flatnonzero(~bad & ~left)
        quarantined += int((bad & ~left).sum())
        mine = numbers[kept]
        objectless = np.array([truth.rows.objectless(int(row)) for row in mine], np.bool_)
        seen = found.add_rows(boxes[kept], *truth.stacked(mine), truth.rows.sizes[mine], objectless)
        rows.append(mine[seen.places])
        ious.append(seen.values)
    return gather_scores({**found.result(), "rows_quarantined": quarantined}, rows, ious)


def gather_scores(figures: dict[str, Any], rows: list[Array], ious: list[dict[str, Array]]) -> BoxScores:
    """Scores of blocks of rows; `ious` as `wsolpipe.metrics.boxes.RowIous.values`."""
    names = ("iou_top1", "iou_best5", "iou_candidates", "iou_upper", "iou_centre")
    columns = {name: np.concatenate([np.zeros(0), *(each[name] for each in ious)]) for name in names}
    return BoxScores(figures, np.concatenate(rows), columns)


def _stored(view: StageView, truth: Truth) -> Iterator[tuple[Array, Array, Array]]:
    for record in view.committed().values():
        for start in range(record.start, min(record.stop, len(truth.rows)), AT_ONCE):
            stop = min(start + AT_ONCE, record.stop, len(truth.rows))
            boxes = np.asarray(view["boxes"][start:stop], np.float64).reshape(stop - start, -1, 4)
            yield np.arange(start, stop), view["status"][start:stop] == Status.QUARANTINED, boxes


def over_time(view: StageView, index: Index, scores: BoxScores | None) -> dict[str, Any]:
    """Figures of the first boxes of a stage along their groups; empty where the data set has no groups.

    Parameters
    ----------
    view : StageView
        With an array ``boxes``.
    index : Index
        Of its rows.
    scores : BoxScores or None
        Of the same boxes against ground truth, where there is some.

    Returns
    -------
    dict
        ``groups``; ``pairs`` of successive frames with a box each; ``stability``, the mean IoU of such a pair, and
        ``stability_of_groups``, the mean over groups of theirs; with ground truth ``CorLoc_of_groups``, the mean over
        groups of the share of frames (per cent) whose box reaches IoU 0.5.
    """
    table = index.table(["group", "frame"])
    names = table.column("group").fill_null("").to_numpy(zero_copy_only=False)
    if not (names != "").any():
        return {}
    groups = np.unique(names, return_inverse=True)[1].astype(np.int64)
    frames = table.column("frame").fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    order = np.lexsort((frames, groups))
    order = order[names[order] != ""]
    boxes = _first_boxes(view, len(names))[order]
    there = np.isfinite(boxes).all(axis=1)
    pairs = (groups[order][1:] == groups[order][:-1]) & there[1:] & there[:-1]
    ious = _paired_ious(boxes[1:][pairs], boxes[:-1][pairs])
    found: dict[str, Any] = {"groups": len(np.unique(groups[order])), "pairs": int(pairs.sum())}
    found["stability"] = float(ious.mean()) if len(ious) else None
    found["stability_of_groups"] = _mean_of_means(ious, groups[order][1:][pairs])
    if scores is not None and len(scores.rows):
        right = 100.0 * (scores.ious["iou_top1"] >= 0.5)
        grouped = names[scores.rows] != ""
        found["CorLoc_of_groups"] = _mean_of_means(right[grouped], groups[scores.rows][grouped])
    return found


def _first_boxes(view: StageView, rows: int) -> Array:
    """First box of each row, float64 [N, 4]; NaN where a row has none."""
    found = np.full((rows, 4), np.nan)
    for record in view.committed().values():
        for start in range(record.start, min(record.stop, rows), AT_ONCE):
            stop = min(start + AT_ONCE, record.stop, rows)
            boxes = np.asarray(view["boxes"][start:stop], np.float64).reshape(stop - start, -1, 4)[:, 0]
            good = view["status"][start:stop] == Status.OK
            found[start:stop][good] = boxes[good]
    return found


def _paired_ious(one: Array, other: Array) -> Array:
    """IoU of each box with the one at its place in another set, both [N, 4]."""
    near, far = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    overlap = (far - near).clip(0).prod(axis=1)
    union = box_areas(one) + box_areas(other) - overlap
    return np.asarray(np.where(union > 0, overlap / np.where(union > 0, union, 1), 0.0))


def _mean_of_means(values: Array, groups: Array) -> float | None:
    if not len(values):
        return None
    numbers, place = np.unique(groups, return_inverse=True)
    totals = np.bincount(place, weights=values, minlength=len(numbers))
    return float((totals / np.bincount(place, minlength=len(numbers))).mean())


ARRAYS = ("boxes", "top_box", "candidates", "steps", "peak", "fallback")
#: Steps whose estimator is the mean over the boxes that are left: name -> bits that a box must have.
MEANS = {
    "iou_pointing_mean_of_boxes": Step.POINTED,
    "iou_top_mean_of_boxes": Step.TOP,
    "iou_top_pointing_mean_of_boxes": Step.TOP | Step.POINTED,
}


def is_val_boxes(view: StageView) -> bool:
    """Whether a stage keeps the steps of its choice."""
    return set(ARRAYS) <= set(view.manifest.arrays)


def score_val_boxes(view: StageView, truth: Truth) -> BoxScores:
    """Figures of every step, then those of any stage of boxes.

    Each key says its estimator. ``…_mean_of_boxes``: mean IoU of a row's boxes that are left, then over the rows that
    have any (``rows_…`` of them); ``…_one_box``: IoU of one box a row; ``iou_upper_best_box``: of the region that fits
    the ground truth best; ``iou_upper_finalists``: of the best of those that the last step could choose.
    ``pointing_accuracy``: share of rows whose peak lies in a ground-truth box.
    """
    scores, sums, fallbacks = score_boxes(view, truth), _Sums(), dict.fromkeys(Fallback, 0)
    scored = set(scores.rows.tolist())
    for record in view.committed().values():
        status, *columns = (view[name][record.start : record.stop] for name in ("status", *ARRAYS[1:]))
        top, candidates, steps, peak, fallback = columns
        for kind in Fallback:
            fallbacks[kind] += int((fallback[status == Status.OK] & kind > 0).sum())
        for offset, row in enumerate(range(record.start, record.stop)):
            if row in scored:
                _add_row(sums, truth.boxes(row), top[offset], candidates[offset], steps[offset], peak[offset])
    result = scores.figures
    detail = {
        **{name: sums.mean(name) for name in MEANS},
        "iou_top_one_box": sums.mean("top"),
        "iou_final_one_box": result["iou_top1"],
        "iou_upper_best_box": sums.mean("upper"),
        "iou_upper_finalists": sums.mean("finalists"),
        "iou_centre_one_box": result["iou_centre"],
        "pointing_accuracy": sums.mean("pointing"),
        **{f"rows_{name.removeprefix('iou_').removesuffix('_mean_of_boxes')}": sums.rows(name) for name in MEANS},
        **{f"rows_fallback_{str(kind.name).lower()}": count for kind, count in fallbacks.items()},
    }
    return replace(scores, figures={**detail, **result})


class _Sums:
    """Means over the rows that have a value."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def mean(self, name: str) -> float | None:
        known = self.values.get(name)
        return float(np.mean(known)) if known else None

    def rows(self, name: str) -> int:
        return len(self.values.get(name, ()))


def _add_row(sums: _Sums, truth: Array, top: Array, candidates: Array, steps: Array, peak: Array) -> None:
    present = ~np.isnan(candidates).any(axis=1)
    boxes, passed = candidates[present], steps[present]
    if len(boxes):
        ious = iou_per_box(boxes, truth)
        sums.add("upper", float(ious.max()))
        finalists = ious[passed & int(Step.FINALIST) > 0]
        if len(finalists):  # no step chooses among boxes of a file or of a map
            sums.add("finalists", float(finalists.max()))
        for name, bits in MEANS.items():
            left = (passed & int(bits)) == int(bits)
            if left.any():
                sums.add(name, float(ious[left].mean()))
    if not np.isnan(top).any():
        sums.add("top", best_iou(top, truth))
    if not np.isnan(peak).any():
        x, y = peak
        inside = (truth[:, 0] <= x) & (x < truth[:, 2]) & (truth[:, 1] <= y) & (y < truth[:, 3])
        sums.add("pointing", float(inside.any()))


def first_box_ious(view: StageView, truth: Truth) -> dict[str, float]:
    """IoU of the first box of each row with the ground truth that fits it best, by image id.

    Rows without a box or without ground truth are left out.
    """
    ious: dict[str, float] = {}
    for record in view.committed().values():
        found, status = view["boxes"][record.start : record.stop], view["status"][record.start : record.stop]
        for offset in np.flatnonzero(status == Status.OK):
            row = record.start + int(offset)
            own = truth.boxes(row)
            if len(own) and not np.isnan(found[offset, 0]).any():
                ious[truth.rows.ids[row]] = best_iou(found[offset, :1], own)
    return ious
