"""The page of training runs: the choice and its reason, accuracy by epoch and threshold, losses, cost of choosing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsolpipe.contract.errors import DataError, raise_as
from wsolpipe.evaluate.glossary import format_figure, shown_name
from wsolpipe.metrics.protocol import Choice, Metric, Run, curve_of, doubts, score_of
from wsolpipe.metrics.protocol_tables import protocol_table
from wsolpipe.pages.charts import Curve, Plot, draw_figure
from wsolpipe.pages.document import Gallery, Part, compose_page, render, render_gallery, share, write_page

NOT_LOSSES = {"kind", "step", "epoch", "phase"}
LISTED = 60
LOG = "metrics.jsonl"
TEMPLATES = Path(__file__).parent / "templates"


def write_run_page(
    path: Path,
    plots: Mapping[str, Plot],
    runs: Sequence[Run],
    choice: Choice,
    *,
    by: str,
    metric: Metric,
    rows: Gallery | str = "",
) -> None:
    """Write the page of the runs under a folder.

    Parameters
    ----------
    path : Path
        HTML file.
    plots : mapping of str to Plot
        Of `page_plots`.
    runs : sequence of Run
        Epochs with their figures.
    choice : Choice
        What is chosen of them.
    by : str
        Annotator that chooses.
    rows : Gallery or str
        Rows of the chosen run, or why there are none.

    Raises
    ------
    ConfigError
        If jinja2 is not installed.
    """
    names = list(dict.fromkeys(run.run for run in runs))
    reasons = doubts(runs, by, choice, metric=metric)
    figures = [draw_figure(plot) for plot in plots.values()]
    parts = [
        render("run", "", TEMPLATES, choice=choice, metric=metric, by=by, runs=runs, names=names, reasons=reasons),
        render("charts", "Curves", TEMPLATES, figures=figures),
    ]
    if all("gt" in run.test for run in runs):
        annotators = [by, *(["gt"] if by != "gt" and all("gt" in run.validation for run in runs) else [])]
        parts.append(_cost(protocol_table(runs, annotators=annotators, metric=metric)))
    parts.append(_epochs(runs, metric))
    if isinstance(rows, str):
        parts += [render("rows", "Rows", TEMPLATES, why=rows)] if rows else []
    else:
        parts.append(render_gallery(rows))
    write_page(path, compose_page(f"{choice.run.run} – wsoltrain report", parts))


def page_plots(folder: Path, runs: Sequence[Run], choice: Choice, *, by: str, metric: Metric) -> dict[str, Plot]:
    """Every chart of the page by the stem of its file, each with all runs, annotators and losses.

    Parameters
    ----------
    folder : Path
        Where the runs were found: their losses are read from ``metrics.jsonl`` beside them.
    runs, choice, by, metric
        As of `write_run_page`.

    Raises
    ------
    DataError
        If the losses cannot be read.
    """
    mine = [run for run in runs if run.run == choice.run.run]
    of_chosen = {f"runs-{stem.partition('-')[0]}": plot for stem, plot in run_plots(mine, choice.run, metric).items()}
    annotators = of_chosen.pop("runs-epochs")
    several = {"runs-annotators": annotators} if len(annotators.curves) > 1 else {}
    return {"runs-epochs": _by_epoch(runs, by, metric), **several, **of_chosen, **_losses(folder, choice.run.run)}


def _by_epoch(runs: Sequence[Run], by: str, metric: Metric) -> Plot:
    curves = []
    for name in dict.fromkeys(run.run for run in runs):
        mine = sorted((run for run in runs if run.run == name), key=lambda run: run.epoch)
        scores = np.array([_height(run.validation.get(by), metric) for run in mine])
        curves.append(Curve(name, scores, np.array([run.epoch for run in mine])))
    far = max(1, *(run.epoch for run in runs))
    return Plot(f"{metric} on validation by {by}", "epoch", curves, far=far)


def run_plots(epochs: Sequence[Run], chosen: Run, metric: Metric) -> dict[str, Plot]:
    """Plots of a run by the stems of their files: ``epochs-RUN``, and ``thresholds-RUN`` of the chosen epoch.

    Localization by each annotator and accuracy, as figures 4.1 and 4.2 of the thesis show them.

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
    across, known = np.array([run.epoch for run in epochs]), [_named(run) for run in epochs]
    heights = {
        name: np.array([_height(figures.get(name), metric) for figures in known])
        for name in dict.fromkeys(name for figures in known for name in figures)
    }
    curves = [Curve(name, values, across) for name, values in heights.items() if np.isfinite(values).any()]
    far = max(1, epochs[-1].epoch)
    plots = {f"epochs-{chosen.run}": Plot(f"{metric} of {chosen.run} by epoch", "epoch", curves, far=far)}
    shown = []
    for name, entry in _named(chosen).items() if metric != "PxAP" else ():
        if np.isfinite(_height(entry, metric)) and isinstance(entry, dict) and len(entry["iou"]) > 1:
            values = curve_of(entry, metric) / _unit(metric)
            shown.append(Curve(name, values, np.arange(len(values)) / len(values)))
    if shown:
        title = f"{metric} of {chosen.run}, epoch {chosen.epoch}, by threshold"
        plots[f"thresholds-{chosen.run}"] = Plot(title, "threshold", shown)
    return plots


def _named(run: Run) -> dict[str, Any]:
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


def find_run(folder: Path, name: str) -> Path | None:
    """Folder of a run by its name, or the only one, among those under a folder; None where neither is there."""
    files = sorted(folder.rglob(LOG))
    path = next((each for each in files if each.parent.name == name), files[0] if len(files) == 1 else None)
    return None if path is None else path.parent


def _losses(folder: Path, name: str) -> dict[str, Plot]:
    """Each loss by step, as a share of its highest value."""
    found = find_run(folder, name)
    if found is None:
        return {}
    path = found / LOG
    with raise_as(DataError, f"cannot read {path}", OSError, ValueError, say=str):
        logged = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    steps = [line for line in logged if line.get("kind") == "step"]
    losses = [
        key for key in dict.fromkeys(key for line in steps for key in line)
        if key not in NOT_LOSSES and not key.startswith("count ")
    ]  # fmt: skip
    curves = []
    for key in losses:
        mine = np.array([(line["step"], float(line[key])) for line in steps if key in line])
        top = max(float(np.abs(mine[:, 1]).max()), 1e-12)
        curves.append(Curve(f"{key} (highest {top:.3g})", mine[:, 1].clip(0) / top, mine[:, 0]))
    if not curves:
        return {}
    title = "Losses, each as a share of its highest value"
    return {"runs-losses": Plot(title, "step", curves, far=steps[-1]["step"])}


def _cost(table: Sequence[Mapping[str, Any]]) -> Part:
    names = [name for name in ("MaxBoxAcc", "MaxBoxAccV2", "PxAP", "iou") if any(name in cell for cell in table)]
    lines = []
    for cell in table:
        tau = cell["tau"]
        threshold = "–" if tau is None else tau if isinstance(tau, str) else f"{tau:.3f}"
        figures = ["–" if cell.get(name) is None else format_figure(name, float(cell[name])) for name in names]
        kind, choice = "oracle" if cell["oracle"] else "realistic", f"{cell['model']}-{cell['threshold']}"
        lines.append([cell["annotator"], choice, cell["epoch"], threshold, *figures, kind])
    titles = ["annotator", "choice", "#epoch", "#threshold", *(f"#{shown_name(name)}" for name in names), ""]
    return render("cost", "What choosing cost", TEMPLATES, titles=titles, lines=lines)


def _epochs(runs: Sequence[Run], metric: Metric) -> Part:
    annotators = list(
        dict.fromkeys(name for run in runs for name, entry in run.validation.items() if isinstance(entry, dict))
    )
    ordered = sorted(runs, key=lambda run: (run.run, run.epoch))
    lines = [
        [run.run, run.epoch, *(share(_height(run.validation.get(name), metric)) for name in annotators)]
        for run in ordered[:LISTED]
    ]
    titles = ["run", "#epoch", *(f"#{metric} by {name}" for name in annotators)]
    return render("epochs", "Epochs", TEMPLATES, titles=titles, lines=lines, more=len(ordered) - LISTED)
