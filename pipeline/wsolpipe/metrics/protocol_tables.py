"""Choices of annotators side by side: the tables of the realistic protocol (thesis, tables 4.2, 4.3 and 4.6 to 4.8).

Cells are named as in the thesis: B is where the best configuration was chosen, T where the threshold was; on Test or on
Validation. Each annotator picks the epoch of every run by its own validation figures; BT and BV only choose among the
runs that are left so. BV-VT is the realistic cell; a choice on the test split (BT, TT) is an oracle and only shows what
is lost. ``cls`` gives no threshold: all its cells take each image's own Otsu threshold (``test.otsu``).

Two rules make the cells. ``thesis``: each BT cell takes the run whose test figure is best at that cell's own threshold,
so that BT-TT and BT-VT may be different runs; IoU-30, IoU-50, IoU-70 and MaxBoxAccV2 are of the largest contour, each
level at a threshold of its own. ``single``: BT takes one run for both thresholds, by its best test figure; all figures
are read at one threshold, and the levels are of all contours.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.metrics.confidence import middle
from wsolpipe.metrics.pixels import nearest_threshold
from wsolpipe.metrics.protocol import (
    ANNOTATORS,
    IOU_LEVELS,
    curve_of,
    entry_of,
    estimate_tau,
    known_metric,
    rank,
    select,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsolpipe.metrics.protocol import Metric, Run

Rule = Literal["thesis", "single"]
RULES: tuple[Rule, ...] = get_args(Rule)
CELLS = tuple((model, threshold) for model in ("BT", "BV") for threshold in ("TT", "VT"))
#: Line of models that ``cls`` chose, at the threshold that suits the test split best: what Otsu costs.
CLS_AT_TRUTH = "cls, tau of gt"
BY_LEVEL = tuple(f"IoU-{level}" for level in IOU_LEVELS)


def annotators_of(runs: Sequence[Run]) -> list[str]:
    """Return the annotators that every run has figures of, those of the thesis first.

    Raises
    ------
    DataError
        If there is none.
    """
    shared = [name for name in runs[0].validation if all(name in run.validation for run in runs)]
    names = ["cls" if name == "accuracy" else name for name in shared]
    if not names:
        msg = f"no annotator ({', '.join(ANNOTATORS)} …) has validation figures in every run"
        raise DataError(msg)
    known = [name for name in ANNOTATORS if name in names]
    return [*known, *(name for name in names if name not in known)]


def protocol_table(
    runs: Sequence[Run],
    *,
    annotators: Sequence[str] | None = None,
    metric: Metric = "MaxBoxAcc",
    rule: Rule = "thesis",
) -> list[dict[str, Any]]:
    """Return the table BT/BV x TT/VT for each annotator, one dict a cell.

    Keys: ``annotator``, ``model`` ("BT" or "BV"), ``threshold`` ("TT" or "VT"), ``oracle`` (looked at the test split),
    ``run``, ``epoch``, ``tau``, then the test figures, see `figures_at`. With the rule ``thesis`` ``taus`` holds the
    threshold of each level. For ``cls`` ``tau`` is "otsu"; its figures are None where a run has no ``test.otsu``.

    Parameters
    ----------
    annotators : sequence of str, optional
        Default: those that every run has figures of.
    metric : str
        Figure that chooses.
    rule : {"thesis", "single"}
        How cells are made; see the module.

    Raises
    ------
    DataError
        If a run lacks figures, or runs were tested at different numbers of thresholds.
    ConfigError
        If the metric or the rule is unknown.
    """
    known_metric(metric)
    if rule not in RULES:
        msg = f"unknown rule {rule!r}: choose one of {', '.join(RULES)}"
        raise ConfigError(msg)
    _check_thresholds(runs)
    table = []
    for annotator in annotators_of(runs) if annotators is None else annotators:
        picked = picked_runs(runs, annotator, metric)
        best = {"BV": select(picked, annotator, metric=metric).run, "BT": _best_once(picked, annotator, metric)}
        for model, threshold in CELLS:
            found = {id(run): _cell(run, annotator, threshold, metric, rule) for run in picked}
            run = best[model]
            if model == "BT" and rule == "thesis":
                run = max(picked, key=lambda each: (_height(found[id(each)], metric), *_on_test(each, metric)))  # noqa: B023
            oracle = model == "BT" or (threshold == "TT" and annotator != "cls")
            names = {"annotator": annotator, "model": model, "threshold": threshold, "oracle": oracle}
            table.append({**names, "run": run.run, "epoch": run.epoch, **found[id(run)]})
    return table


def full_table(
    runs: Sequence[Run],
    *,
    annotators: Sequence[str] | None = None,
    metric: Metric = "MaxBoxAcc",
    rule: Rule = "thesis",
) -> list[dict[str, Any]]:
    """Return `protocol_table` with a line `CLS_AT_TRUTH` beside ``cls`` (tables 4.6 to 4.8)."""
    table = []
    for cell in protocol_table(runs, annotators=annotators, metric=metric, rule=rule):
        table.append(cell)
        if cell["annotator"] == "cls" and cell["threshold"] == "TT":
            run = next(each for each in runs if (each.run, each.epoch) == (cell["run"], cell["epoch"]))
            truth = entry_of(run.test, "gt", run, "test")
            names = {"annotator": CLS_AT_TRUTH, "oracle": True}
            table.append({**cell, **names, **_figures(truth, truth, metric, rule)})
    return table


def picked_runs(runs: Sequence[Run], annotator: str, metric: Metric) -> list[Run]:
    """Return each run at the epoch that an annotator picked by its validation figures."""
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.run, []).append(run)
    return [select(epochs, annotator, metric=metric).run for epochs in by_name.values()]


def lacking(runs: Sequence[Run]) -> str:
    """Return a sentence about figures that run files of earlier versions lack; empty where nothing is missing."""
    tests = [run.test["gt"] for run in runs if "gt" in run.test]
    if all(set(IOU_LEVELS) <= set(test["largest"]) for test in tests if "largest" in test):
        return ""
    return (
        "files of an earlier version hold no counts of the largest contour at IoU 30 and 70, without which IoU-30, "
        "IoU-70 and MaxBoxAccV2 stay empty; train again, or take rule=single"
    )


def _check_thresholds(runs: Sequence[Run]) -> None:
    """Refuse runs whose test figures have different thresholds: one of more thresholds would win by that alone."""
    counts = {len(run.test["gt"]["iou"]): run.name for run in runs if "iou" in run.test.get("gt", ())}
    if len(counts) > 1:
        msg = f"runs were tested at different thresholds: {', '.join(f'{name} at {n}' for n, name in counts.items())}"
        raise DataError(msg, hint="train those of an earlier version again, or keep them in a folder of their own")


def _on_test(run: Run, metric: Metric) -> tuple[float, ...]:
    return rank(entry_of(run.test, "gt", run, "test"), metric, run.epoch)


def _best_once(picked: Sequence[Run], annotator: str, metric: Metric) -> Run:
    """Return the run with the best test figure, at the test split's own threshold; for ``cls`` at Otsu's."""
    at_otsu = annotator == "cls" and all("otsu" in run.test for run in picked)
    return max(
        picked, key=lambda run: (*(rank(run.test["otsu"], metric, 0) if at_otsu else ()), *_on_test(run, metric))
    )


def _height(cell: Mapping[str, Any], metric: Metric) -> float:
    value = cell.get(metric)
    return -1.0 if value is None else float(value)


def _cell(run: Run, annotator: str, threshold: str, metric: Metric, rule: Rule) -> dict[str, Any]:
    truth = entry_of(run.test, "gt", run, "test")
    if annotator == "cls":
        if "otsu" in run.test:
            otsu = run.test["otsu"]
            return {**_figures(otsu, otsu, metric, rule), "tau": "otsu"}
        without: dict[str, Any] = {**dict.fromkeys(_figures(truth, truth, metric, rule)), "tau": None, "taus": {}}
        return {**without, "PxAP": truth["PxAP"]} if "PxAP" in truth else without
    chosen_by = truth if threshold == "TT" else entry_of(run.validation, annotator, run, "validation")
    return _figures(truth, chosen_by, metric, rule)


def _figures(entry: Mapping[str, Any], chosen_by: Mapping[str, Any], metric: Metric, rule: Rule) -> dict[str, Any]:
    """Return the figures of a test entry at the thresholds that another entry chooses."""
    found = figures_at(entry, estimate_tau(chosen_by, metric))
    if rule == "single" or "largest" not in entry:
        return found
    rows, taus, levels = max(entry["rows"], 1), {}, dict[str, Any](dict.fromkeys(BY_LEVEL))
    for level in IOU_LEVELS:
        counts, own = _largest(entry, level), _largest(chosen_by, level)
        if counts is not None and own is not None:
            taus[level] = middle(own) / len(own)
            levels[f"IoU-{level}"] = 100 * counts[nearest_threshold(taus[level], len(counts))] / rows
    known = [value for value in levels.values() if value is not None]
    mean = float(np.mean(known)) if len(known) == len(levels) else None
    return {**found, "MaxBoxAccV2": mean, **levels, "iou": found["iou"], "taus": taus}


def _largest(entry: Mapping[str, Any], level: str) -> Sequence[int] | None:
    """Return the counts of the largest contour; of a single box, such as Otsu's, those of all contours are the same."""
    counts = entry.get("all", {}).get(level, ()) if len(entry["iou"]) == 1 else ()
    found: Sequence[int] | None = entry["largest"].get(level) or counts or None
    return found


def figures_at(entry: Mapping[str, Any], tau: float) -> dict[str, Any]:
    """Return the figures of a test entry at one threshold, IoU always beside the score.

    Boxes: ``MaxBoxAcc`` with its 95 % interval ``low`` and ``high`` (Wilson's, of `rows` images), ``MaxBoxAccV2``, its
    levels ``IoU-30``, ``IoU-50`` and ``IoU-70`` (per cent) and ``iou`` (fraction). Masks: ``PxAP`` and ``iou``.
    """
    place = nearest_threshold(tau, len(entry["iou"]))
    iou = float(entry["iou"][place])
    if "PxAP" in entry:
        return {"tau": tau, "PxAP": float(entry["PxAP"]), "iou": iou}
    rows = max(entry["rows"], 1)
    scores: dict[str, Any] = {"tau": tau, "MaxBoxAcc": float(curve_of(entry, "MaxBoxAcc")[place])}
    scores["low"], scores["high"] = wilson(entry["largest"]["50"][place], rows)
    if "all" in entry:
        scores["MaxBoxAccV2"] = float(curve_of(entry, "MaxBoxAccV2")[place])
        scores |= {f"IoU-{level}": 100 * entry["all"][level][place] / rows for level in IOU_LEVELS}
    return {**scores, "iou": iou}


def wilson(count: float, rows: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the interval of a share, per cent (Wilson, JASA 1927): the images differ, the model does not."""
    share, spread = count / rows, z * z / rows
    centre = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / rows + spread / (4 * rows)) / (1 + spread)
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)
