"""``wsoltrain noise``: how much noise in validation boxes a selection tolerates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.contract.errors import ConfigError
from wsolpipe.evaluate.glossary import format_figure
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key, read_keys, require
from wsolpipe.keys.run_keys import DATASET, STORE
from wsoltrain.cli.command import make_command, store_of
from wsoltrain.cli.common_keys import split
from wsoltrain.cli.tables import align

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KEYS = (
    Key("runs", kinds.file("folder"), "folder of runs that were trained with outcomes=true test=test"),
    DATASET,
    STORE,
    split("val", "split that the runs were chosen by", "val"),
    Key(
        "levels", kinds.list_of(kinds.integer(1)), "noise of the ground-truth boxes, per cent",
        tuple(range(5, 51, 5)), unit="per cent",
    ),
    Key("draws", kinds.integer(1), "draws of each level", 3),
    Key("metric", kinds.choice("MaxBoxAcc", "iou"), "figure that chooses", "MaxBoxAcc"),
    Key("plots", kinds.or_null(kinds.file("folder")), "folder for plots: SVG, and PDF and PNG for papers", None),
)  # fmt: skip


@make_command(
    "noise",
    KEYS,
    example="wsoltrain noise runs=searches/cam-birds dataset=birds.yaml store=labels plots=plots",
    json_help="Print the figures as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Choose epoch, threshold and run again by ground truth with noise, level by level; nothing is trained.

    Ground truth of the validation split is read: this is a study of selection, not a selection.
    """
    from wsolpipe.evaluate.results import StoreResults
    from wsolpipe.evaluate.truth import find_truth
    from wsolpipe.images.dataset import load_dataset
    from wsolpipe.pages.charts import save_plots
    from wsoltrain.selection.noise_study import study_noise

    values = read_keys(words, KEYS)
    require(values, "wsoltrain noise", runs="searches/cam-birds", dataset="demo")
    wrong = [level for level in values["levels"] if level > 100]
    if wrong:
        msg = f"levels={wrong[0]}: noise is a percentage from 1 to 100"
        raise ConfigError(msg, hint="levels=5,10,20")
    results = StoreResults(store_of(values), load_dataset(values["dataset"]).name, None)
    truth = find_truth(results, results.rows(values["val"]), "gt")
    study = study_noise(
        Path(values["runs"]), truth, percents=values["levels"], draws=values["draws"], metric=values["metric"]
    )
    lines = study.lines()
    files = save_plots(Path(values["plots"]), study.plots()) if values["plots"] else []
    if as_json:
        print_json({"runs": len(study.runs), "draws": values["draws"], "metric": values["metric"], "levels": lines})
        return
    for line in align(_table(lines, values["metric"])):
        click.echo(line)
    click.echo(f"{len(study.runs)} runs, {values['draws']} draws of each level; {values['metric']} on test")
    for path in files:
        click.echo(path)


def _table(lines: Sequence[Mapping[str, Any]], metric: str) -> list[list[str]]:
    """Levels down; figures at the level's threshold and at the test split's, and runs by distance of epochs."""
    begins = list(lines[0]["apart"])
    ends = [*(str(int(after) - 1) for after in begins[1:]), ""]
    names = [
        first if first == last else f"{first}-{last}" if last else f"{first}+"
        for first, last in zip(begins, ends, strict=True)
    ]
    rules = [word for rule in ("VT", "TT") for word in (f"{rule} mean", "min", "max")]
    head = ["noise", *rules, "chosen", "lost", *(f"{name} apart" for name in names)]
    table = [head]
    for line in lines:
        shown = [line[rule][key] for rule in ("VT", "TT") for key in ("mean", "min", "max")]
        figures = [str(format_figure(metric, value)) for value in (*shown, line["chosen"], line["lost"])]
        table.append([f"{line['noise']} %" if line["noise"] else "gt", *figures, *map(str, line["apart"].values())])
    return table
