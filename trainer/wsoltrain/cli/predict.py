"""``wsoltrain predict``: boxes, maps and overlays of images and videos, or a stage of a store for a data set."""

from __future__ import annotations

import sys

from wsolpipe.keys.key import read_keys
from wsolpipe.keys.words import split_words
from wsoltrain.cli.command import make_command, show
from wsoltrain.runs.predict import KEYS, predict_dataset, predict_pictures, refuse_unread


@make_command(
    "predict",
    KEYS,
    example="wsoltrain predict checkpoint=runs/dips-demo source=photos out=found",
    json_help="Print what boxes.json holds.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Find the object in images and videos, or in a data set.

    Of source=, writes boxes.json and boxes.csv (xyxy, half-open, pixels of the upright picture), maps and overlays. Of
    dataset=, makes the stage predictions of the store: in shards, resumable, and read like any other stage.
    """
    values, given = read_keys(words, KEYS), split_words(words)
    if "dataset" in given:
        code = predict_dataset(values, given, as_json=as_json)
        if code:
            sys.exit(code)
        return
    result, lines = predict_pictures(values, given)
    show(result, lines, as_json=as_json)
    refuse_unread(result)
