"""``wsoltrain eval``: score a trained localizer on a split, at the threshold that was chosen with it."""

from __future__ import annotations

from wsolpipe.keys.key import read_keys, require
from wsoltrain.cli.command import make_command, show
from wsoltrain.runs.evaluate import KEYS, describe, evaluate, refuse_worse


@make_command(
    "eval",
    KEYS,
    example="wsoltrain eval checkpoint=runs/dips-demo/best-proposals.safetensors dataset=demo split=test",
    json_help="Print the figures as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Score a trained localizer on a split, beside the boxes that it learned from."""
    values = read_keys(words, KEYS)
    require(values, "wsoltrain eval", checkpoint="runs/dips-demo", dataset="demo")
    result = evaluate(values)
    show(result, describe(result), as_json=as_json)
    if values["must_beat"]:
        refuse_worse(result)
