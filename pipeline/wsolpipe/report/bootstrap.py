"""Intervals and paired tests of the figures of maps (`wsolpipe.metrics.confidence`), from what single rows add."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.engine.lookup import find_view, require_complete
from wsolpipe.metrics.boxes import LEVELS
from wsolpipe.metrics.confidence import Comparison, Interval, compare, interval
from wsolpipe.metrics.pixels import nearest_threshold
from wsolpipe.report.maps import score_maps
from wsolpipe.report.mapsources import StageMaps
from wsolpipe.report.reference import check_rows
from wsolpipe.report.selection import folder_source, make_chooser, select_tau

if TYPE_CHECKING:
    from wsolpipe.contract.reader import StageView
    from wsolpipe.engine.session import Session
    from wsolpipe.report.maps import Kept, MapScores
    from wsolpipe.report.mapsources import MapSource
    from wsolpipe.report.options import Options
    from wsolpipe.report.reference import Reference

Array = np.ndarray[Any, Any]


def _map_values(kept: Kept, tau: float | None) -> dict[str, tuple[Array, Array]]:
    """Rows and what each adds, by figure; at one threshold where that was chosen beforehand."""
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
    if "PxAP" in kept.values:
        found["PxAP"] = kept.get("PxAP")
    return found


def map_intervals(scores: MapScores, tau: float | None) -> dict[str, Any]:
    """Bootstrap interval of each figure; of the best over thresholds where none was chosen beforehand."""
    assert scores.kept is not None
    return {name: plain(interval(values)) for name, (_, values) in _map_values(scores.kept, tau).items()}


def compare_maps(
    session: Session,
    scores: MapScores,
    tau: float | None,
    reference: Reference,
    options: Options,
    view: StageView | None,
) -> dict[str, Any]:
    """Paired test against another result of the same stage, or another folder, with a threshold chosen alike."""
    word = str(options.beside)
    if view is None:
        other: MapSource = folder_source(options, reference.rows, word)
        twin, name = None, {"maps": word}
    else:
        twin = find_view(session, view.stage, view.split, key=word)
        require_complete(twin)
        check_rows(twin, reference.rows)
        other, name = StageMaps(twin, options.slot, reference.rows), {"key": twin.key}
    tau_2 = tau
    if options.tau_from is not None:
        own = replace(options, maps=word, tau_maps=None) if view is None else options
        tau_2, _ = select_tau(make_chooser(session, own, twin))
    threads = session.config.threads or None
    theirs = score_maps(other, reference, options.frame(), threads=threads, keep=True)
    assert scores.kept is not None
    assert theirs.kept is not None
    second = _map_values(theirs.kept, tau_2)
    tests: dict[str, Any] = {}
    for figure, (rows, values) in _map_values(scores.kept, tau).items():
        common, mine, its = np.intersect1d(rows, second[figure][0], return_indices=True)
        tests[figure] = {**plain(compare(values[mine], second[figure][1][its])), "rows": len(common)}
    return {**name, "tau": tau_2, **tests}


def plain(found: Interval | Comparison) -> dict[str, Any]:
    """Numbers of an interval (``value``, ``low``, ``high`` …) or of a paired test (``difference``, ``p`` …)."""
    if isinstance(found, Interval):
        return asdict(found)
    part = found.difference
    return {"difference": part.value, "low": part.low, "high": part.high, "level": part.level, "p": found.p}
