"""Curves of an evaluation as CSV, and as SVG files that stand alone."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from markupsafe import Markup

from wsolpipe.contract.errors import ConfigError
from wsolpipe.evaluate.map_scores import BINS
from wsolpipe.pages.charts import HEIGHT, WIDTH, Curve, Plot, Series, histogram, lines, success
from wsolpipe.report.print_plots import can_print, print_plot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wsolpipe.evaluate.evaluation import Evaluated
    from wsolpipe.evaluate.map_scores import MapScores

Array = np.ndarray[Any, Any]

HEAD = 44.0
STYLES = ("first", "second", "third", "fourth")
COLOURS = dict(zip(STYLES, ("#d8401a", "#2f8f83", "#3b5fae", "#7b8492"), strict=True))
SHEET = (
    "svg{font:12px system-ui,sans-serif;fill:#5a6370}.rule{stroke:#dfe3e8}.line{fill:none;stroke-width:2}"
    ".title{font-size:15px;font-weight:650;fill:#15181d}"
    + "".join(f".line.{name}{{stroke:{colour}}}.{name}{{fill:{colour}}}" for name, colour in COLOURS.items())
    + ".line{fill:none}"
)


def curve_rows(evaluated: Evaluated) -> list[dict[str, float]]:
    """Curves as rows of a table, shares and IoU in 0..1.

    Maps: one row a threshold ``tau``; ``largest 0.5`` is MaxBoxAcc, ``all 0.3`` a level of MaxBoxAccV2, ``largest iou``
    the mean IoU; ``precision``, ``recall`` and ``pixel iou`` where there are masks. Boxes and masks: one row an ``iou``
    of 0, 0.01 …, with the share of rows that reach it.
    """
    if evaluated.maps is None:
        levels = np.linspace(0, 1, 101)
        shares = {name: _reached(values, levels) for name, values in evaluated.ious.items()}
        return [
            {"iou": float(level), **{name: float(share[place]) for name, share in shares.items()}}
            for place, level in enumerate(levels)
        ]
    rows = evaluated.maps.boxes.curve_rows()
    if evaluated.maps.pixels is not None:
        curves = evaluated.maps.pixels.curves()
        named = {"precision": "precision", "recall": "recall", "pixel iou": "iou"}
        for place, row in enumerate(rows):
            row |= {name: float(curves[stored][place]) for name, stored in named.items()}
    return rows


def _reached(values: Array, levels: Array) -> Array:
    shares: Array = 1 - np.searchsorted(np.sort(values), levels, side="left") / max(len(values), 1)
    return shares


def write_csv(path: Path, found: Sequence[Evaluated]) -> None:
    """Write the curves of all evaluations, the split in the first column.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    rows = [{"split": item.figures["split"], **row} for item in found for row in curve_rows(item)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        msg = f"csv={path}: {error}"
        raise ConfigError(msg) from error


def draw_svg(plot: Plot) -> str:
    """A plot as an SVG file that stands alone."""
    chart: Markup
    if plot.kind == "histogram":
        chart = histogram(cast("Sequence[Series]", plot.series), bins=BINS, title=plot.title, axis=plot.axis)
    elif plot.kind == "success":
        chart = success(cast("Sequence[Series]", plot.series), title=plot.title, axis=plot.axis)
    else:
        chart = lines(cast("Sequence[Curve]", plot.series), title=plot.title, axis=plot.axis)
    return standalone(chart, plot.title, plot.series)


def write_plots(folder: Path, evaluated: Evaluated) -> list[Path]:
    """Write accuracy against tau, an IoU histogram and precision-recall, as far as there is something to draw.

    Each as SVG, and as PDF (fonts embedded) and PNG where matplotlib is installed.

    Raises
    ------
    ConfigError
        If the folder cannot be written.
    """
    figures = evaluated.figures
    subject = "-".join(str(figures[name]) for name in ("stage", "key", "split") if name in figures)
    stem = subject if "stage" in figures else f"maps-{subject}"
    drawn = _box_plots(evaluated) if evaluated.maps is None else _map_plots(evaluated.maps, figures["tau"])
    return save_plots(folder, {f"{stem}-{name}": plot for name, plot in drawn.items()})


def save_plots(folder: Path, plots: Mapping[str, Plot]) -> list[Path]:
    """Write plots by the stems of their files; see `write_plots`."""
    paths: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, plot in plots.items():
            paths.append(folder / f"{name}.svg")
            paths[-1].write_text(draw_svg(plot), encoding="utf-8")
            if can_print():
                paths += print_plot(plot, folder / name)
    except OSError as error:
        msg = f"plots={folder}: {error}"
        raise ConfigError(msg) from error
    return paths


def _map_plots(scores: MapScores, tau: float | None) -> dict[str, Plot]:
    drawn = {}
    if scores.boxes.rows_scored and tau is not None:
        names = {"largest 0.5": "MaxBoxAcc", "all 0.3": "V2 at 0.3", "all 0.7": "V2 at 0.7", "largest iou": "mean IoU"}
        every = np.arange(scores.boxes.thresholds) / scores.boxes.thresholds
        curves = [
            Curve(style, label, every, scores.boxes.curve(name))
            for style, (name, label) in zip(STYLES, names.items(), strict=True)
        ]
        drawn["accuracy"] = Plot("Accuracy against threshold", "threshold", curves)
        middles = (np.arange(BINS) + 0.5) / BINS
        ious = Series("first", f"box at threshold {tau:.3f}", np.repeat(middles, scores.ious_at(tau)))
        drawn["iou"] = Plot("Rows by IoU", "IoU", [ious], "histogram")
    if scores.pixels is not None:
        found = scores.pixels.curves()
        curve = Curve("second", "pixels of all images", found["recall"], found["precision"])
        drawn["precision"] = Plot("Precision against recall", "recall", [curve])
    return drawn


def _box_plots(evaluated: Evaluated) -> dict[str, Plot]:
    names = {
        "iou_top1": "first box",
        "iou_best5": "best of five",
        "iou_centre": "centred box",
        "mask_iou": "mask",
        "mask_iou_centre": "centred box",
    }
    known = [name for name in names if len(evaluated.ious.get(name, ()))]
    series = [Series(style, names[name], evaluated.ious[name]) for style, name in zip(STYLES, known, strict=False)]
    if not series:
        return {}
    return {
        "iou": Plot("Rows by IoU", "IoU", [series[0], series[-1]], "histogram"),
        "success": Plot("Rows that reach an IoU", "IoU", series, "success"),
    }


def standalone(chart: Markup, title: str, series: Sequence[Series | Curve]) -> str:
    """An SVG file of a chart, with title, legend and colours of its own."""
    # Markup.replace would escape what it puts in.
    inner = str(chart).replace("<svg ", f'<svg y="{HEAD:g}" width="{WIDTH:g}" height="{HEIGHT:g}" ', 1)
    marks, left = Markup(""), 54.0
    for item in series:
        marks += Markup(
            '<rect class="{}" x="{:.0f}" y="28" width="14" height="4"/><text x="{:.0f}" y="34">{}</text>'
        ).format(item.style, left, left + 20, item.label)
        left += 36 + 7 * len(item.label)
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:g} {:g}" width="{:g}" height="{:g}">'
            '<style>{}</style><rect width="100%" height="100%" fill="#fff"/>'
            '<text class="title" x="54" y="20">{}</text>{}{}</svg>\n'
        ).format(WIDTH, HEIGHT + HEAD, 1.5 * WIDTH, 1.5 * (HEIGHT + HEAD), Markup(SHEET), title, marks, Markup(inner))
    )
