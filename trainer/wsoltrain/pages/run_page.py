"""The page of training runs: what was chosen and why, accuracy by epoch and threshold, losses, cost of choosing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.metrics.protocol import curve_of, doubts
from wsolpipe.metrics.protocol_tables import protocol_table
from wsolpipe.pages.cards import render_gallery
from wsolpipe.pages.charts import Curve, Plot, draw_figure
from wsolpipe.pages.document import Part, compose_page, open_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wsolpipe.metrics.protocol import Choice, Metric, Run
    from wsolpipe.pages.cards import Gallery

NOT_LOSSES = {"kind", "step", "epoch", "phase"}
LISTED = 60
LOG = "metrics.jsonl"

HEAD = """
<header><p class="kicker">wsoltrain report</p>
<h1>{{ choice.run.run }} <span>epoch {{ choice.run.epoch }}</span></h1></header>
<div class="hero bare"><div class="verdict">
<p class="figure"><b>{{ "%.1f"|format(choice.score) }}</b> {{ metric }} on validation, by {{ by }}</p>
<p>Chosen of {{ runs|length }} epochs of {{ names|length }} run{{ "s" if names|length > 1 }}
{%- if choice.tau is not none %}, at threshold {{ "%.3f"|format(choice.tau) }}{% endif %};
ground truth {{ "was read to choose: an oracle" if by == "gt" else "chose nothing" }}.</p>
{% for reason in reasons %}<p class="note">{{ reason }}</p>{% endfor %}
</div></div>
"""
CHARTS = """
<div class="charts">{% for figure in figures %}{{ figure }}{% endfor %}</div>
"""
COST = """
<p class="hint">Rows of the test split. B: where model and epoch were chosen, T: where the threshold was; on test (T, an
oracle) or on validation (V). Figures in per cent.</p>
<div class="scroll"><table class="plain"><thead><tr><th>annotator</th><th>choice</th><th class="number">epoch</th>
<th class="number">threshold</th>{% for name in names %}<th class="number">{{ name }}</th>
{% endfor %}<th></th></tr></thead>
{% for cell in table %}<tr><td>{{ cell.annotator }}</td><td>{{ cell.model }}-{{ cell.threshold }}</td>
<td class="number">{{ cell.epoch }}</td><td class="number">{{ cell.shown_tau }}</td>
{% for value in cell.figures %}<td class="number">{{ value }}</td>{% endfor %}
<td>{{ "oracle" if cell.oracle else "realistic" }}</td></tr>{% endfor %}</table></div>
"""
EPOCHS = """
<div class="scroll"><table class="plain"><thead><tr><th>run</th><th class="number">epoch</th>
{% for name in annotators %}<th class="number">{{ metric }} by {{ name }}</th>{% endfor %}</tr></thead>
{% for name, epoch, scores in epochs %}<tr><td>{{ name }}</td><td class="number">{{ epoch }}</td>
{% for score in scores %}<td class="number">{{ "–" if score is none else "%.1f"|format(score) }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% if more %}<p class="more">{{ more }} more epochs: <code>wsoltrain select --json</code></p>{% endif %}
"""

NO_ROWS = """<p class="note">Rows are not shown: {{ why }}</p>"""


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
    parts = [_part("head", "", HEAD, choice=choice, metric=metric, by=by, runs=runs, names=names, reasons=reasons)]
    parts.append(_part("charts", "Curves", CHARTS, figures=[draw_figure(plot) for plot in plots.values()]))
    if all("gt" in run.test for run in runs):
        annotators = [by, *(["gt"] if by != "gt" and all("gt" in run.validation for run in runs) else [])]
        parts.append(_cost(protocol_table(runs, annotators=annotators, metric=metric)))
    parts.append(_epochs(runs, metric))
    if rows:
        parts.append(_part("rows", "Rows", NO_ROWS, why=rows) if isinstance(rows, str) else render_gallery(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(compose_page(f"{choice.run.run} – wsoltrain report", parts), encoding="utf-8")


def _part(name: str, title: str, template: str, **facts: Any) -> Part:
    return Part(name, title, open_environment().from_string(template).render(**facts))


def _best(entry: Mapping[str, Any] | None, metric: Metric) -> float | None:
    """Score of an entry at its own best threshold, per cent; None where it has none."""
    if entry is None:
        return None
    if "PxAP" in entry:
        return float(entry["PxAP"])
    found = float(curve_of(entry, metric).max())
    return 100 * found if metric == "iou" else found


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
    return {
        "runs-epochs": _by_epoch(runs, by, metric),
        **_by_threshold(choice.run),
        **_losses(folder, choice.run.run),
    }


def _by_epoch(runs: Sequence[Run], by: str, metric: Metric) -> Plot:
    curves = []
    for name in dict.fromkeys(run.run for run in runs):
        mine = sorted((run for run in runs if run.run == name), key=lambda run: run.epoch)
        scores = np.array([_best(run.validation.get(by), metric) for run in mine], np.float64) / 100
        curves.append(Curve(name, scores, np.array([run.epoch for run in mine])))
    far = max(1, *(run.epoch for run in runs))
    return Plot(f"{metric} on validation by {by}", "epoch", curves, far=far)


def _by_threshold(run: Run) -> dict[str, Plot]:
    entries = {f"validation, {name}": entry for name, entry in run.validation.items() if isinstance(entry, dict)}
    entries |= {f"test, {name}": entry for name, entry in run.test.items() if isinstance(entry, dict)}
    known = [(name, np.asarray(entry["iou"], np.float64)) for name, entry in entries.items() if "iou" in entry]
    curves = [Curve(name, ious, np.arange(len(ious)) / len(ious)) for name, ious in known]
    title = "IoU of the chosen epoch against the threshold"
    return {"runs-thresholds": Plot(title, "threshold", curves)} if curves else {}


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
    try:
        logged = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        msg = f"cannot read {path}: {error}"
        raise DataError(msg) from error
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
    shown = []
    for cell in table:
        tau = cell["tau"]
        figures = [_shown(name, cell.get(name)) for name in names]
        shown.append(
            {
                **cell,
                "figures": figures,
                "shown_tau": "–" if tau is None else tau if isinstance(tau, str) else f"{tau:.3f}",
            }
        )
    words = {"iou": "mean IoU"}
    return _part("cost", "What choosing cost", COST, table=shown, names=[words.get(name, name) for name in names])


def _shown(name: str, value: Any) -> str:
    from wsolpipe.evaluate.glossary import format_figure

    return "–" if value is None else str(format_figure(name, float(value)))


def _epochs(runs: Sequence[Run], metric: Metric) -> Part:
    annotators = list(
        dict.fromkeys(name for run in runs for name, entry in run.validation.items() if isinstance(entry, dict))
    )
    ordered = sorted(runs, key=lambda run: (run.run, run.epoch))
    rows = [
        (run.run, run.epoch, [_best(run.validation.get(name), metric) for name in annotators])
        for run in ordered[:LISTED]
    ]
    more = max(len(ordered) - LISTED, 0)
    return _part("epochs", "Epochs", EPOCHS, epochs=rows, annotators=annotators, metric=metric, more=more)
