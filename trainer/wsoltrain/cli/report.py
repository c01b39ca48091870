"""``wsoltrain report``: one HTML page about training runs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from wsolpipe.contract.errors import ConfigError
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, read_keys, require
from wsoltrain.cli import select
from wsoltrain.cli.command import make_command

KEYS = (
    *select.KEYS,
    Key("out", kinds.file("HTML file"), "file to write", otherwise="<runs>/report.html"),
)


@make_command(
    "report",
    KEYS,
    example="wsoltrain report runs=runs/dips-demo",
    json_help="Print the choice and the path of the page as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Write one HTML page about runs: what was chosen, curves, losses, epochs, and what choosing cost."""
    from wsolpipe.metrics.protocol import annotator_of, metric_of, read_runs
    from wsoltrain.selection.run_page import write_run_page

    values = read_keys(words, KEYS)
    require(values, "wsoltrain report", runs="runs/dips-demo")
    folder = Path(values["runs"])
    runs = read_runs(folder)
    by = values["by"] or annotator_of(runs)
    metric = metric_of(runs, by) if values["metric"] == "auto" else values["metric"]
    out = Path(values["out"] or folder / "report.html")
    try:
        choice = write_run_page(out, folder, runs, by=by, metric=metric)
    except OSError as error:
        msg = f"cannot write {out}: {error.strerror}"
        raise ConfigError(msg, hint="choose another place with out=FILE.html") from error
    if as_json:
        told = {"page": str(out), "by": by, "run": choice.run.run, "epoch": choice.run.epoch, "tau": choice.tau}
        click.echo(json.dumps(told))
    else:
        click.echo(f"{out}: {choice.run.name}, chosen by {by} of {len(runs)} epochs")
