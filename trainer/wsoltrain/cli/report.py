"""``wsoltrain report``: one HTML page about training runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.contract.errors import ConfigError, WsolError
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, read_keys, require
from wsoltrain.cli import select
from wsoltrain.cli.command import make_command
from wsoltrain.cli.common_keys import DEVICE, PLOTS

if TYPE_CHECKING:
    from wsolpipe.pages.gallery import Gallery

KEYS = (
    *(key for key in select.KEYS if key.name in ("runs", "by", "metric")),
    Key("shown", kinds.integer(0), "rows of validation, and as many of training, on the page; 0 for none", 24),
    Key(
        "root", kinds.file("folder"), "folder of the image files, if they are no longer where they were",
        otherwise="that of the training",
    ),
    DEVICE,
    Key("out", kinds.file("file that ends in .html", ending=".html"), "file to write", otherwise="<runs>/report.html"),
    PLOTS,
)  # fmt: skip


@make_command(
    "report",
    KEYS,
    example="wsoltrain report runs=runs/dips-demo",
    json_help="Print the choice and the path of the page as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Write one HTML page about runs: what was chosen, curves, losses, epochs, what choosing cost, and rows.

    Rows are those of the chosen run: its map and box on validation beside ground truth and pseudo-boxes, and on
    training images the pixels that its sampler draws.
    """
    from wsolpipe.metrics.protocol import annotator_of, metric_of, read_runs
    from wsolpipe.metrics.protocol import select as choose
    from wsolpipe.pages.charts import save_plots
    from wsoltrain.pages.run_page import page_plots, write_run_page

    values = read_keys(words, KEYS)
    require(values, "wsoltrain report", runs="runs/dips-demo")
    folder = Path(values["runs"])
    runs = read_runs(folder)
    by = values["by"] or annotator_of(runs)
    metric = metric_of(runs, by) if values["metric"] == "auto" else values["metric"]
    out = Path(values["out"] or folder / "report.html")
    choice = choose(runs, by, metric=metric)
    rows = _rows(folder, choice.run.run, by, values) if values["shown"] else ""
    plots = page_plots(folder, runs, choice, by=by, metric=metric)
    try:
        write_run_page(out, plots, runs, choice, by=by, metric=metric, rows=rows)
    except OSError as error:
        msg = f"cannot write {out}: {error.strerror}"
        raise ConfigError(msg, hint="choose another place with out=FILE.html") from error
    files = [str(path) for path in save_plots(Path(values["plots"]), plots)] if values["plots"] else []
    if as_json:
        told = {"page": str(out), "by": by, "run": choice.run.run, "epoch": choice.run.epoch, "tau": choice.tau}
        told |= {"plots": files} if files else {}
        click.echo(json.dumps(told))
    else:
        click.echo(f"{out}: {choice.run.name}, chosen by {by} of {len(runs)} epochs")
        if isinstance(rows, str) and rows:
            click.echo(f"  note: rows are not shown: {rows}")
        for path in files:
            click.echo(path)


def _rows(folder: Path, name: str, by: str, values: dict[str, Any]) -> Gallery | str:
    """Rows of the chosen run, or why they cannot be shown."""
    import torch

    from wsolpipe.networks.devices import choose_device
    from wsoltrain.inference.model import load_trained
    from wsoltrain.pages.run_page import find_run
    from wsoltrain.pages.run_rows import find_place, run_gallery
    from wsoltrain.training.annotators import read_annotators

    device = torch.device(choose_device(values["device"]))
    run = find_run(folder, name)
    if run is None:
        return f"no folder {name} with its weights lies under {folder}"
    try:
        trained = load_trained(str(run / read_annotators([by])[0].file_name), device=device)
        place = find_place(run, trained.recipe, values["root"])
        return run_gallery(
            trained.model, trained.recipe, trained.tau, place, by=by, count=values["shown"], device=device
        )
    except WsolError as error:
        return f"{error.message}{f' ({error.hint})' if error.hint else ''}"
