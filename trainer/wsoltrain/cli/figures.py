"""``wsoltrain eval``, ``compare``, ``ceiling``, ``select`` and ``report``: figures of trained localizers."""

from __future__ import annotations

from pathlib import Path

from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class, read_keys, require
from wsoltrain.cli.command import make_command, show
from wsoltrain.runs import ceiling, choice, compare, evaluate
from wsoltrain.runs.many import split_site
from wsoltrain.runs.settle import read_recipe_words


@make_command(
    "eval",
    evaluate.KEYS,
    example="wsoltrain eval checkpoint=runs/dips-demo/best-proposals.safetensors dataset=demo split=test",
    json_help="Print the figures as JSON.",
)
def eval_command(words: tuple[str, ...], as_json: bool) -> None:
    """Score a trained localizer on a split, beside the boxes that it learned from."""
    values = read_keys(words, evaluate.KEYS)
    require(values, "wsoltrain eval", checkpoint="runs/dips-demo", dataset="demo")
    result = evaluate.evaluate(values)
    show(result, evaluate.describe(result), as_json=as_json)
    if values["must_beat"]:
        evaluate.refuse_worse(result)


@make_command(
    "compare",
    compare.KEYS,
    example="wsoltrain compare recipes=cam,has,dips dataset=demo store=wsol-store epochs=4",
    json_help="Print the figures as JSON.",
)
def compare_command(words: tuple[str, ...], as_json: bool) -> None:
    """Train recipes one after another, choose epoch and threshold of each by validation pseudo-boxes, and compare them.

    A recipe whose file says what chooses it is chosen by that, unless by= is given; where that is accuracy (cls), boxes
    are those of each map's own Otsu threshold.

    Further keys are given to every recipe. Called again, resume where it stopped; recipes that are trained are only
    scored. cluster= trains them elsewhere, all at once; they are scored here. Prints one table with 95 % intervals and
    paired tests, and writes a page of the same images under each, to sort and to filter.
    """
    rest, profile = split_site(words)
    values, _ = read_recipe_words(rest, compare.KEYS)
    require(values, "wsoltrain compare", recipes="cam,has", dataset="demo")
    show(*compare.compare(values, rest, profile), as_json=as_json)


@make_command(
    "ceiling",
    ceiling.KEYS,
    recipe=True,
    example="wsoltrain ceiling recipe=dips dataset=demo store=wsol-store epochs=5",
    json_help="Print the table as JSON.",
)
def ceiling_command(words: tuple[str, ...], as_json: bool) -> None:
    """Train a recipe's network on ground truth and show its accuracy, beside its labels and a student.

    A student far below its ceiling has bad labels; a ceiling near the labels means a backbone that cannot see objects.
    The network is not kept, and the file that is written cannot be selected from: it has seen ground truth.
    """
    values, changes = read_recipe_words(words, ceiling.KEYS)
    require(values, "wsoltrain ceiling", dataset="demo")
    found = ceiling.measure(values, changes)
    head = f"{found['split']}, ceiling of recipe {found['recipe']} after {found['epochs']} epochs on ground truth:"
    show(found, [head, *evaluate.format_lines(found["table"])], as_json=as_json)


class _Keys:
    """Keys that only ``wsoltrain select`` has.

    Attributes
    ----------
    plots
        folder for plots of the chosen run by epoch and threshold: SVG, and PDF and PNG for papers
    """

    plots = Key(kinds.or_null(kinds.file("folder")))


SELECT_KEYS = (*choice.CHOICE, *keys_of_class(_Keys))


@make_command(
    "select",
    SELECT_KEYS,
    example="wsoltrain select runs=runs/dips-demo metric=iou",
    json_help="Print the choice as JSON.",
)
def select_command(words: tuple[str, ...], as_json: bool) -> None:
    """Choose run, epoch and threshold by one annotator.

    Where runs were scored on a test split, show the table of model and threshold chosen there (BT, TT: oracles) or on
    validation (BV, VT).
    """
    values = read_keys(words, SELECT_KEYS)
    require(values, "wsoltrain select", runs="runs/dips-demo")
    found = choice.choose_run(values["runs"], values["by"], values["metric"])
    reasons, cells, files = found.doubts(), found.table(), []
    if values["plots"]:
        from wsolpipe.pages.charts import save_plots
        from wsoltrain.pages.run_page import run_plots

        epochs = [run for run in found.runs if run.run == found.choice.run.run]
        files = save_plots(Path(values["plots"]), run_plots(epochs, found.choice.run, found.metric))
    notes = (f"  note: {reason}" for reason in reasons)
    lines = (found.text(), *notes, *map(choice.describe_cell, cells), *map(str, files))
    show({**found.to_json(), "doubts": reasons, "table": cells}, lines, as_json=as_json)


@make_command(
    "report",
    choice.REPORT,
    example="wsoltrain report runs=runs/dips-demo",
    json_help="Print the choice and the path of the page as JSON.",
)
def report_command(words: tuple[str, ...], as_json: bool) -> None:
    """Write one HTML page about runs: the choice, curves, losses, epochs, the cost of choosing, and rows.

    Rows are those of the chosen run: its map and box on validation beside ground truth and pseudo-boxes, and on
    training images the pixels that its sampler draws.
    """
    values = read_keys(words, choice.REPORT)
    require(values, "wsoltrain report", runs="runs/dips-demo")
    show(*choice.report(values), as_json=as_json)
