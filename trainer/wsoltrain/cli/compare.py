"""``wsoltrain compare``: train several recipes, choose each by pseudo-boxes, and score all on the same images."""

from __future__ import annotations

from wsolpipe.keys.key import require
from wsoltrain.cli.command import make_command, show
from wsoltrain.runs.compare import KEYS, compare
from wsoltrain.runs.many import split_site
from wsoltrain.runs.settle import read_recipe_words


@make_command(
    "compare",
    KEYS,
    example="wsoltrain compare recipes=cam,has,dips dataset=demo store=wsol-store epochs=4",
    json_help="Print the figures as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Train recipes one after another, choose epoch and threshold of each by validation pseudo-boxes, and compare them.

    A recipe whose file says what chooses it is chosen by that, unless by= is given; where that is accuracy (cls), boxes
    are those of each map's own Otsu threshold.

    Further keys are given to every recipe. Called again, resume where it stopped; recipes that are trained are only
    scored. cluster= trains them elsewhere, all at once; they are scored here. Prints one table with 95 % intervals and
    paired tests, and writes a page of the same images under each, to sort and to filter.
    """
    rest, profile = split_site(words)
    values, _ = read_recipe_words(rest, KEYS)
    require(values, "wsoltrain compare", recipes="cam,has", dataset="demo")
    show(*compare(values, rest, profile), as_json=as_json)
