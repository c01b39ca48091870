"""``wsolpipe import``."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from wsolpipe.cli.command import configure, make_command
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key, require
from wsolpipe.keys.run_keys import SPLIT, STAGE
from wsolpipe.share.formats.base import FORMATS, WRITTEN_ONLY

KEYS = (
    Key("format", kinds.choice(*(name for name in FORMATS.names() if name not in WRITTEN_ONLY)), "format of the boxes"),
    Key("in", kinds.file("file or folder"), "what another tool, or wsolpipe export, wrote"),
    Key(
        "over",
        kinds.text("STAGE or STAGE:KEY", source="stage"),
        "stage whose first box stands for each row that the file does not list",
        otherwise="such rows have no box",
    ),
    Key(
        "drawn", kinds.choice("changed", "listed"),
        "rows that somebody drew: those whose boxes are no longer as export wrote them, or all that the file lists",
        "changed",
    ),
    Key("out", kinds.file(), "file to keep the boxes in, as human_boxes.file= takes it"),
)  # fmt: skip
STORED = replace(
    STAGE, meaning="stage to make: human_boxes, or one of your own of the same class", otherwise="human_boxes"
)
IN_SPLIT = replace(SPLIT, meaning="split that the boxes are of", otherwise="the only one")


@make_command("import", keys=KEYS, listed=(STORED, "dataset", IN_SPLIT, "store", "root"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Take boxes that people drew or corrected into the store, as a stage with a key of its own.

    eval against=human_boxes, wsoltrain fit by=human_boxes and val_boxes.annotator=human use them then.

    \b
    wsolpipe import format=coco in=corrected.json dataset=D split=val over=val_boxes
    """
    from wsolpipe.share.drawn_boxes import take_file

    config, given = configure(words, KEYS)
    require(given, "wsolpipe import", format="coco", **{"in": "corrected.json"})
    told, outcome = take_file(config, given)
    if as_json:
        print_json(told)
    else:
        _show(told)
    if outcome.code:
        print(outcome.verdict, file=sys.stderr)
    return outcome.code


def _show(told: dict[str, Any]) -> None:
    print(
        f"{told['stage']} of {told['split']}, key {told['key']}: {told['boxes']} boxes of {told['rows_drawn']} of "
        f"{told['rows']} rows" + (f", {told['rows_kept']} rows keep a box that was there" if told["rows_kept"] else "")
    )
    if told["clipped"]:
        print(f"{told['clipped']} boxes reached over the edge of their image and were clipped", file=sys.stderr)
    if told["elsewhere"]:
        print(f"{told['elsewhere']} images of the file are not of {told['split']} and were left out", file=sys.stderr)
