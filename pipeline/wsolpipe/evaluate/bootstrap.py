"""Intervals and paired tests (`wsolpipe.metrics.confidence`) of figures, from what single rows add to them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.metrics.boxes import LEVELS
from wsolpipe.metrics.confidence import Comparison, Interval, compare, interval
from wsolpipe.metrics.pixels import nearest_threshold

if TYPE_CHECKING:
    from wsolpipe.evaluate.box_scores import BoxScores
    from wsolpipe.evaluate.map_scores import MapScores

Array = np.ndarray[Any, Any]
Values = dict[str, tuple[Array, Array]]
"""Rows [n] and what each adds [n, ...], by figure."""


def map_values(scores: MapScores, tau: float | None) -> Values:
    """Rows of maps and what each adds, by figure; at one threshold where that was chosen beforehand.

    Scored with ``keep``.
    """
    kept = scores.kept
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


def box_values(scores: BoxScores) -> Values:
    """Rows of first boxes and what each adds, by the names of figures of maps."""
    own = scores.values()
    found = {
        "MaxBoxAcc": 100 * own["recall50_top1"],
        "MaxBoxAccV2": 100 * own["box_maxboxacc_v2"],
        "iou": own["iou_top1"],
    }
    return {name: (scores.rows, values) for name, values in found.items()}


def intervals_of(values: Values) -> dict[str, Any]:
    """Bootstrap interval of each figure; of the best over thresholds where none was chosen beforehand."""
    return {name: plain(interval(each)) for name, (_, each) in values.items()}


def paired_tests(first: Values, second: Values) -> dict[str, Any]:
    """Paired test of each figure that both results have, on the rows that both have."""
    tests: dict[str, Any] = {}
    for figure, (rows, values) in first.items():
        if figure not in second:
            continue
        common, mine, its = np.intersect1d(rows, second[figure][0], return_indices=True)
        tests[figure] = {**plain(compare(values[mine], second[figure][1][its])), "rows": len(common)}
    return tests


def plain(found: Interval | Comparison) -> dict[str, Any]:
    """Numbers of an interval (``value``, ``low``, ``high`` …) or of a paired test (``difference``, ``p`` …)."""
    if isinstance(found, Interval):
        return asdict(found)
    part = found.difference
    return {"difference": part.value, "low": part.low, "high": part.high, "level": part.level, "p": found.p}
