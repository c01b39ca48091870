"""``wsoltrain ceiling``: what a recipe's network reaches on ground truth, beside its labels and a student."""

from __future__ import annotations

from wsolpipe.keys.key import require
from wsoltrain.cli.command import make_command, show
from wsoltrain.runs.ceiling import KEYS, measure
from wsoltrain.runs.evaluate import format_lines
from wsoltrain.runs.settle import read_recipe_words


@make_command(
    "ceiling",
    KEYS,
    recipe=True,
    example="wsoltrain ceiling recipe=dips dataset=demo store=wsol-store epochs=5",
    json_help="Print the table as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Train a recipe's network on ground truth and show its accuracy, beside its labels and a student.

    A student far below its ceiling has bad labels; a ceiling near the labels means a backbone that cannot see objects.
    The network is not kept, and the file that is written cannot be selected from: it has seen ground truth.
    """
    values, changes = read_recipe_words(words, KEYS)
    require(values, "wsoltrain ceiling", dataset="demo")
    found = measure(values, changes)
    head = f"{found['split']}, ceiling of recipe {found['recipe']} after {found['epochs']} epochs on ground truth:"
    show(found, [head, *format_lines(found["table"])], as_json=as_json)
