"""``wsoltrain noise``: how much noise in validation boxes a selection tolerates."""

from __future__ import annotations

from wsolpipe.keys.key import read_keys, require
from wsoltrain.cli.command import make_command, show
from wsoltrain.runs.noise import KEYS, study


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
    values = read_keys(words, KEYS)
    require(values, "wsoltrain noise", runs="searches/cam-birds", dataset="demo")
    show(*study(values), as_json=as_json)
