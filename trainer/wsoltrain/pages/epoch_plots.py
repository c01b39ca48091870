"""Plots of a run: localization by each annotator and accuracy, by epoch and threshold (thesis, figures 4.1 and 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.metrics.protocol import curve_of, score_of
from wsolpipe.pages.charts import Curve, Plot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsolpipe.metrics.protocol import Metric, Run


def run_plots(epochs: Sequence[Run], chosen: Run, metric: Metric) -> dict[str, Plot]:
    """Plots by the stems of their files: ``epochs-RUN``, and ``thresholds-RUN`` of the chosen epoch.

    Parameters
    ----------
    epochs : sequence of Run
        Of one run.
    chosen : Run
        One of them.
    metric : str
        Measure of localization; figures that are not of its kind are left out.
    """
    epochs = sorted(epochs, key=lambda run: run.epoch)
    last = max(1, epochs[-1].epoch)
    across = np.array([run.epoch for run in epochs])
    known = [_figures(run) for run in epochs]
    heights = {
        name: np.array([_height(figures.get(name), metric) for figures in known])
        for name in dict.fromkeys(name for figures in known for name in figures)
    }
    curves = _curves({name: (across, values) for name, values in heights.items() if np.isfinite(values).any()})
    plots = {f"epochs-{chosen.run}": Plot(f"{metric} of {chosen.run} by epoch", "epoch", curves, far=last)}
    shown = {}
    for name, entry in _figures(chosen).items() if metric != "PxAP" else ():
        if np.isfinite(_height(entry, metric)) and isinstance(entry, dict) and len(entry["iou"]) > 1:
            values = curve_of(entry, metric) / _unit(metric)
            shown[name] = (np.arange(len(values)) / len(values), values)
    if shown:
        title = f"{metric} of {chosen.run}, epoch {chosen.epoch}, by threshold"
        plots[f"thresholds-{chosen.run}"] = Plot(title, "threshold", _curves(shown))
    return plots


def _figures(run: Run) -> dict[str, Any]:
    """Figures of an epoch by what the legend calls them."""
    seen = {"accuracy": "by cls (accuracy)"}
    tested = {"gt": "test", "otsu": "test, Otsu", "accuracy": "test accuracy"}
    found = {seen.get(name, f"by {name}"): entry for name, entry in run.validation.items()}
    return found | {tested.get(name, f"test, {name}"): entry for name, entry in run.test.items()}


def _unit(metric: Metric) -> int:
    return 1 if metric == "iou" else 100


def _height(entry: Mapping[str, Any] | float | None, metric: Metric) -> float:
    """Score at its own best threshold, or accuracy, as a share; NaN where there is none."""
    if isinstance(entry, dict):
        of_masks = "PxAP" in entry
        if metric == "iou" or of_masks == (metric == "PxAP"):
            return score_of(entry, metric) / _unit(metric)
    return entry / 100 if isinstance(entry, int | float) else float("nan")


def _curves(points: Mapping[str, tuple[Any, Any]]) -> list[Curve]:
    return [Curve(name, y, x) for name, (x, y) in points.items()]
