"""``wsoltrain preview``: one sheet of what a training step would see."""

from __future__ import annotations

from wsolpipe.keys.key import read_keys, require
from wsoltrain.cli.command import make_command, show
from wsoltrain.runs.preview import KEYS, preview


@make_command(
    "preview",
    KEYS,
    example="wsoltrain preview store=wsol-store dataset=demo n=16 out=preview.png",
    json_help="Print what was drawn as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Draw the inputs and labels of a training step into one picture."""
    values = read_keys(words, KEYS)
    require(values, "wsoltrain preview", dataset="demo")
    show(*preview(values), as_json=as_json)
