"""Boxes of video frames over time: how much the box of one frame moves to the next, and figures of whole clips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.schema import Status
from wsolpipe.metrics.boxes import box_areas

if TYPE_CHECKING:
    from wsolpipe.contract.reader import Index, StageView
    from wsolpipe.evaluate.box_scores import BoxScores

Array = np.ndarray[Any, Any]
AT_ONCE = 4096


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
