"""``wsoltrain select``: choose run, epoch and threshold by one annotator's validation figures and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsolpipe.evaluate.glossary import format_figure, shown_name
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key, read_keys, require
from wsoltrain.cli.command import make_command
from wsoltrain.cli.common_keys import METRIC, STAGE

KEYS = (
    Key("runs", kinds.file("folder"), "folder of runs, searched with its sub-folders"),
    Key("by", STAGE, "annotator that chooses: stage of pseudo-boxes, cls or gt; by default the one of the training"),
    Key("metric", METRIC, "figure that chooses; auto: PxAP where the truth was masks, else MaxBoxAcc", "auto"),
    Key(
        "plots", kinds.or_null(kinds.file("folder")),
        "folder for plots of the chosen run by epoch and threshold: SVG, and PDF and PNG for papers", None,
    ),
)  # fmt: skip
SHOWN = ("MaxBoxAcc", "MaxBoxAccV2", "PxAP", "iou")


@make_command(
    "select",
    KEYS,
    example="wsoltrain select runs=runs/dips-demo metric=iou",
    json_help="Print the choice as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Choose run, epoch and threshold by one annotator.

    Where runs were scored on a test split, show the table of model and threshold chosen there (BT, TT: oracles) or on
    validation (BV, VT).
    """
    from wsolpipe.metrics.protocol import annotator_of, doubts, metric_of, read_runs, select
    from wsolpipe.metrics.protocol_tables import protocol_table

    values = read_keys(words, KEYS)
    require(values, "wsoltrain select", runs="runs/dips-demo")
    runs = read_runs(values["runs"])
    by = values["by"] or annotator_of(runs)
    metric = metric_of(runs, by) if values["metric"] == "auto" else values["metric"]
    choice = select(runs, by, metric=metric)
    reasons = doubts(runs, by, choice, metric=metric)
    annotators = [by]
    if by != "gt" and all("gt" in run.validation for run in runs):
        annotators.append("gt")
    tested = all("gt" in run.test for run in runs)
    cells = protocol_table(runs, annotators=annotators, metric=metric) if tested else []
    files = []
    if values["plots"]:
        from wsolpipe.pages.charts import save_plots
        from wsoltrain.pages.run_page import run_plots

        epochs = [run for run in runs if run.run == choice.run.run]
        files = save_plots(Path(values["plots"]), run_plots(epochs, choice.run, metric))
    chosen: dict[str, Any] = {
        "run": choice.run.run,
        "epoch": choice.run.epoch,
        "tau": choice.tau,
        "score": choice.score,
    }
    if as_json:
        chosen |= {"doubts": reasons, "table": cells}
        print_json({"by": by, "metric": metric, **chosen})
        return
    tau = "" if choice.tau is None else f", tau {choice.tau:.3f}"
    score = f"validation {metric} {choice.score:.1f}"
    click.echo(f"{choice.run.name}{tau}: {score} by {by}, of {len(runs)} epochs")
    for reason in reasons:
        click.echo(f"  note: {reason}")
    for cell in cells:
        click.echo(_line(cell))
    for path in files:
        click.echo(path)


def _line(cell: dict[str, Any]) -> str:
    """One cell of the table in words."""
    tau = cell["tau"] if isinstance(cell["tau"], str) else "none" if cell["tau"] is None else f"{cell['tau']:.3f}"
    scores = "  ".join(f"{shown_name(name)} {_number(name, cell[name])}" for name in SHOWN if name in cell)
    oracle = "  (oracle)" if cell["oracle"] else ""
    where = f"{cell['annotator']:<12}{cell['model']}-{cell['threshold']}"
    return f"  {where}  epoch {cell['epoch']:>3}  tau {tau}  {scores}{oracle}"


def _number(name: str, value: float | dict[str, float] | None) -> str:
    mean = value["mean"] if isinstance(value, dict) else value
    return "none" if mean is None else str(format_figure(name, float(mean)))
