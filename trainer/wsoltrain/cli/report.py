"""``wsoltrain report``: one HTML page about training runs."""

from __future__ import annotations

from wsolpipe.keys.key import read_keys, require
from wsoltrain.cli.command import make_command, show
from wsoltrain.runs.choice import REPORT as KEYS
from wsoltrain.runs.choice import report


@make_command(
    "report",
    KEYS,
    example="wsoltrain report runs=runs/dips-demo",
    json_help="Print the choice and the path of the page as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Write one HTML page about runs: the choice, curves, losses, epochs, the cost of choosing, and rows.

    Rows are those of the chosen run: its map and box on validation beside ground truth and pseudo-boxes, and on
    training images the pixels that its sampler draws.
    """
    values = read_keys(words, KEYS)
    require(values, "wsoltrain report", runs="runs/dips-demo")
    show(*report(values), as_json=as_json)
