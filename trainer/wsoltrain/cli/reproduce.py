"""``wsoltrain reproduce``: a table of the papers, published figures beside those found here."""

from __future__ import annotations

from wsolpipe.keys.key import require
from wsolpipe.keys.words import split_words
from wsoltrain.cli.command import make_command, show
from wsoltrain.papers.reproduce import KEYS, reproduce


@make_command(
    "reproduce",
    KEYS,
    example="wsoltrain reproduce table=demo store=wsol-store",
    json_help="Print cells, or the plan, as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Make a table of the papers: stages, trainings and scores, then published | here ± interval | difference.

    Called again, resume where it stopped. What cannot be made says which data or weights to put where; the rest is
    made. Further keys are given to every recipe, and the table says so. Writes table.txt, table.csv and table.tex.
    """
    require({"table": None, **split_words(words)}, "wsoltrain reproduce", table="demo")
    show(*reproduce(words), as_json=as_json)
