"""``wsoltrain select``: choose run, epoch and threshold by one annotator's validation figures and nothing else."""

from __future__ import annotations

from pathlib import Path

from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class, read_keys, require
from wsoltrain.cli.command import make_command, show
from wsoltrain.runs import choice


class _Keys:
    """Keys that only ``wsoltrain select`` has.

    Attributes
    ----------
    plots
        folder for plots of the chosen run by epoch and threshold: SVG, and PDF and PNG for papers
    """

    plots = Key(kinds.or_null(kinds.file("folder")))


KEYS = (*choice.CHOICE, *keys_of_class(_Keys))


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
    values = read_keys(words, KEYS)
    require(values, "wsoltrain select", runs="runs/dips-demo")
    found = choice.choose_run(values["runs"], values["by"], values["metric"])
    reasons, cells, files = found.doubts(), found.table(), []
    if values["plots"]:
        from wsolpipe.pages.charts import save_plots
        from wsoltrain.pages.run_page import run_plots

        epochs = [run for run in found.runs if run.run == found.choice.run.run]
        files = save_plots(Path(values["plots"]), run_plots(epochs, found.choice.run, found.metric))
    notes = (f"  note: {reason}" for reason in reasons)
    lines = (found.text(), *notes, *map(choice.describe_cell, cells), *map(str, files))
    show({**found.to_json(), "doubts": reasons, "table": cells}, lines, as_json=as_json)
