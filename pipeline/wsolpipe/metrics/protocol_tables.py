"""What annotators choose, side by side: the tables of the realistic protocol (thesis, tables 4.2, 4.3 and 4.6 to 4.8).

Cells are named as in the thesis: B is where the best configuration was chosen, T where the threshold was; on Test or on
Validation. Each annotator picks the epoch of every run by its own validation figures; BT and BV only choose among the
runs that are left so. BV-VT is the realistic cell; a choice on the test split (BT, TT) is an oracle and only shows what
is lost. ``cls`` gives no threshold: all its cells take each image's own Otsu threshold (``test.otsu``).
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import DataError
from wsolpipe.metrics.pixels import nearest_threshold
from wsolpipe.metrics.protocol import (
    ANNOTATORS,
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

CELLS = tuple((model, threshold) for model in ("BT", "BV") for threshold in ("TT", "VT"))
CLS_AT_TRUTH = "cls, tau of gt"
"""Line of models that ``cls`` chose, at the threshold that suits the test split best: what Otsu costs."""


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
    runs: Sequence[Run], *, annotators: Sequence[str] | None = None, metric: Metric = "MaxBoxAcc"
) -> list[dict[str, Any]]:
    """Return the table BT/BV x TT/VT for each annotator, one dict a cell.

    Keys: ``annotator``, ``model`` ("BT" or "BV"), ``threshold`` ("TT" or "VT"), ``oracle`` (looked at the test split),
    ``run``, ``epoch``, ``tau``, then the test figures at that threshold, see `figures_at`. For ``cls`` ``tau`` is
    "otsu"; its figures are None where a run has no ``test.otsu``.

    Parameters
    ----------
    annotators : sequence of str, optional
        Default: those that every run has figures of.

    Raises
    ------
    DataError
        If a run lacks figures.
    ConfigError
        If the metric is unknown.
    """
    known_metric(metric)
    table = []
    for annotator in annotators_of(runs) if annotators is None else annotators:
        for model, run in chosen_runs(runs, annotator, metric).items():
            for threshold in ("TT", "VT"):
                cell = _cell(run, annotator, threshold, metric)
                oracle = model == "BT" or (threshold == "TT" and annotator != "cls")
                names = {"annotator": annotator, "model": model, "threshold": threshold, "oracle": oracle}
                table.append({**names, "run": run.run, "epoch": run.epoch, **cell})
    return table


def chosen_runs(runs: Sequence[Run], annotator: str, metric: Metric) -> dict[str, Run]:
    """Return the run, at the epoch that the annotator picked, that is best on test ("BT") and on validation ("BV")."""
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.run, []).append(run)
    picked = [select(epochs, annotator, metric=metric).run for epochs in by_name.values()]

    at_otsu = annotator == "cls" and all("otsu" in run.test for run in picked)

    def on_test(run: Run) -> tuple[float, ...]:
        truth = rank(entry_of(run.test, "gt", run, "test"), metric, run.epoch)
        return (*rank(run.test["otsu"], metric, 0), *truth) if at_otsu else truth

    return {"BT": max(picked, key=on_test), "BV": select(picked, annotator, metric=metric).run}


def full_table(
    runs: Sequence[Run], *, annotators: Sequence[str] | None = None, metric: Metric = "MaxBoxAcc"
) -> list[dict[str, Any]]:
    """Return `protocol_table` with a line `CLS_AT_TRUTH` beside ``cls`` (tables 4.6 to 4.8)."""
    table = []
    for cell in protocol_table(runs, annotators=annotators, metric=metric):
        table.append(cell)
        if cell["annotator"] == "cls" and cell["threshold"] == "TT":
            run = next(each for each in runs if (each.run, each.epoch) == (cell["run"], cell["epoch"]))
            truth = entry_of(run.test, "gt", run, "test")
            names = {"annotator": CLS_AT_TRUTH, "oracle": True}
            table.append({**cell, **names, **figures_at(truth, estimate_tau(truth, metric))})
    return table


def _cell(run: Run, annotator: str, threshold: str, metric: Metric) -> dict[str, Any]:
    truth = entry_of(run.test, "gt", run, "test")
    if annotator == "cls":
        if "otsu" in run.test:
            return {**figures_at(run.test["otsu"], 0.0), "tau": "otsu"}
        without = {**dict.fromkeys(figures_at(truth, 0.0)), "tau": None}
        return {**without, "PxAP": truth["PxAP"]} if "PxAP" in truth else without
    chosen_by = truth if threshold == "TT" else entry_of(run.validation, annotator, run, "validation")
    return figures_at(truth, estimate_tau(chosen_by, metric))


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
        scores |= {f"IoU-{level}": 100 * entry["all"][level][place] / rows for level in ("30", "50", "70")}
    return {**scores, "iou": iou}


def wilson(count: float, rows: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the interval of a share, per cent (Wilson, JASA 1927): the images differ, the model does not."""
    share, spread = count / rows, z * z / rows
    middle = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / rows + spread / (4 * rows)) / (1 + spread)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)
