"""Curves of an evaluation as CSV and as plots."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError, raise_as, reason
from wsolpipe.evaluate.map_scores import BINS, MapScores
from wsolpipe.pages.charts import Curve, Plot, histogram, reached, save_plots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsolpipe.evaluate.evaluation import Evaluated

Array = np.ndarray[Any, Any]


def curve_rows(evaluated: Evaluated) -> list[dict[str, float]]:
    """Curves as rows of a table, shares and IoU in 0..1.

    Maps: one row a threshold ``tau``; ``largest 0.5`` is MaxBoxAcc, ``all 0.3`` a level of MaxBoxAccV2, ``largest iou``
    the mean IoU; ``precision``, ``recall`` and ``pixel iou`` where there are masks. Boxes and masks: one row an ``iou``
    of 0, 0.01 …, with the share of rows that reach it.
    """
    if evaluated.maps is None:
        shares = {name: reached(name, values).y.tolist() for name, values in evaluated.ious.items()}
        return [{"iou": n / 100, **{name: share[n] for name, share in shares.items()}} for n in range(101)]
    rows = evaluated.maps.boxes.curve_rows()
    if evaluated.maps.pixels is not None:
        curves = evaluated.maps.pixels.curves()
        named = {"precision": "precision", "recall": "recall", "pixel iou": "iou"}
        for place, row in enumerate(rows):
            row |= {name: float(curves[stored][place]) for name, stored in named.items()}
    return rows


def write_csv(path: Path, found: Sequence[Evaluated]) -> None:
    """Write the curves of all evaluations, the split in the first column.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    rows = [{"split": item.figures["split"], **row} for item in found for row in curve_rows(item)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    with raise_as(
        ConfigError, f"csv={path} cannot be written", OSError, hint="name a file, such as csv=curves.csv", say=reason
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def write_plots(folder: Path, evaluated: Evaluated) -> list[Path]:
    """Write accuracy against tau, an IoU histogram and precision-recall, as far as there is something to draw.

    Each as SVG, PDF and PNG, with its values as CSV.

    Raises
    ------
    ConfigError
        If the folder cannot be written, or matplotlib is not installed.
    """
    figures = evaluated.figures
    subject = "-".join(str(figures[name]) for name in ("stage", "key", "split") if name in figures)
    stem = subject if "stage" in figures else f"maps-{subject}"
    drawn = _box_plots(evaluated) if evaluated.maps is None else _map_plots(evaluated.maps, figures["tau"])
    return save_plots(folder, {f"{stem}-{name}": plot for name, plot in drawn.items()})


def _map_plots(scores: MapScores, tau: float | None) -> dict[str, Plot]:
    drawn = {}
    if scores.boxes.rows_scored and tau is not None:
        names = {"largest 0.5": "MaxBoxAcc", "all 0.3": "V2 at 0.3", "all 0.7": "V2 at 0.7", "largest iou": "mean IoU"}
        every = np.arange(scores.boxes.thresholds) / scores.boxes.thresholds
        curves = [Curve(label, scores.boxes.curve(name), every) for name, label in names.items()]
        drawn["accuracy"] = Plot("Accuracy against threshold", "threshold", curves)
        middles = (np.arange(BINS) + 0.5) / BINS
        ious = histogram(f"box at threshold {tau:.3f}", np.repeat(middles, scores.ious_at(tau)), far=100)
        drawn["iou"] = Plot("Rows by IoU", "IoU, per cent", [ious], "steps", far=100)
    if scores.pixels is not None:
        found = scores.pixels.curves()
        curve = Curve("pixels of all images", found["precision"], 100 * found["recall"], "otsu")
        drawn["precision"] = Plot("Precision against recall", "recall, per cent", [curve], far=100)
    return drawn


def _box_plots(evaluated: Evaluated) -> dict[str, Plot]:
    names = {
        "iou_top1": "first box",
        "iou_best5": "best of five",
        "iou_centre": "centred box",
        "mask_iou": "mask",
        "mask_iou_centre": "centred box",
    }
    known = {names[name]: evaluated.ious[name] for name in names if len(evaluated.ious.get(name, ()))}
    if not known:
        return {}
    ends = dict.fromkeys((next(iter(known)), list(known)[-1]))
    columns = [histogram(label, known[label], far=100) for label in ends]
    shares = [reached(label, values) for label, values in known.items()]
    return {
        "iou": Plot("Rows by IoU", "IoU, per cent", columns, "steps", far=100),
        "success": Plot("Rows that reach an IoU", "IoU, per cent", shares, far=100),
    }
