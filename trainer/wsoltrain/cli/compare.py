"""``wsoltrain compare``: train several recipes, choose each by pseudo-boxes, and score all on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.contract.errors import ConfigError, RunFailed
from wsolpipe.evaluate.glossary import UNITS, format_figure, shown_name
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key, require
from wsoltrain.cli import fit
from wsoltrain.cli.command import make_command, read_recipe_words
from wsoltrain.cli.common_keys import PLOTS, RECIPE, split
from wsoltrain.cli.sites import SITE_KEYS, site_of, split_site
from wsoltrain.cli.tables import align
from wsoltrain.selection.trainings import Training, run_trainings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsolpipe.evaluate.tables import Line
    from wsolpipe.pages.charts import Plot
    from wsoltrain.selection.comparison import Compared
    from wsoltrain.training.evaluation import Evaluator
    from wsoltrain.training.settings import Settings

SHARED = (
    "dataset", "store", "root", "images", "split", "val", "val_rows_per_class", "by", "metric", "workers", "device",
    "save_every",
)  # fmt: skip
KEYS = (
    Key("recipes", kinds.list_of(RECIPE), "recipes, the first one is what "
        "others are tested against"),
    *(key for key in fit.KEYS if key.name in SHARED),
    split("test", "split on which all are scored, against its ground truth", "test"),
    Key("out", kinds.file("folder"), "folder of all runs and of the page", otherwise="compare/<dataset>"),
    Key("shown", kinds.integer(1), "images on the page", 24),
    PLOTS,
    *SITE_KEYS,
)  # fmt: skip
NAMED = 4
"""Recipes that the page's title names; of more it gives the number."""


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
    from wsolpipe.pages.charts import save_plots
    from wsoltrain.pages.compare_page import page_plots

    rest, profile = split_site(words)
    values, changes = read_recipe_words(rest, KEYS)
    require(values, "wsoltrain compare", recipes="cam,has", dataset="demo")
    names = [Path(name).stem for name in values["recipes"]]
    if len(set(names)) < len(names):
        msg = f"recipes={','.join(values['recipes'])} names one twice"
        raise ConfigError(msg)
    own = {key.name for key in KEYS} - set(SHARED)
    shared = [word for word in rest if word.partition("=")[0] not in own]
    prepared = [_prepare((*shared, f"recipe={recipe}")) for recipe in values["recipes"]]  # before any is trained
    out = Path(values["out"] or f"compare/{prepared[0].labelling.dataset}")
    trainings = [
        Training(name, (*shared, f"recipe={recipe}", f"out={out / name}"))
        for name, recipe in zip(names, values["recipes"], strict=True)
    ]
    failed = run_trainings(trainings, site_of(values, profile), out / "logs", lambda each: fit.train(each.words))
    if failed:
        msg = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise RunFailed(msg, hint="the same command resumes; recipes that are trained are only scored")
    compared: list[Compared] = []
    for training in trainings:
        settings = _prepare(training.words)
        evaluator = _score(training.name, settings, values, compared)
    result, table = _table(compared, evaluator)
    below = result["below_centred_box"]
    plots = page_plots(compared)
    page = _write(out, compared, evaluator, settings, table, plots, below)
    files = [str(path) for path in save_plots(Path(values["plots"]), plots)] if values["plots"] else []
    result |= {"split": values["test"], "page": str(page), **({"plots": files} if files else {})}
    if as_json:
        print_json(result)
        return
    for line in (*align(table), UNITS):
        click.echo(line)
    if below:
        click.echo(f"below a centred box: {', '.join(below)}; their labels, and what to try: {_labels(settings)}")
    for line in (f"{page}: the same images side by side", *files):
        click.echo(line)


def _labels(settings: Settings) -> str:
    """The command that shows the labels of a training, and what to try where they are below a centred box."""
    labels = settings.labelling
    return f"wsolpipe report dataset={labels.dataset} store={labels.store} split={labels.split}"


def _prepare(words: tuple[str, ...]) -> Settings:
    return fit.prepare(*read_recipe_words(words, fit.KEYS))[1]


def _score(name: str, settings: Settings, values: dict[str, Any], compared: list[Compared]) -> Evaluator:
    """Score a run's chosen weights and add them to `compared`; the evaluator that did."""
    from dataclasses import replace

    import torch

    from wsoltrain.inference.model import load_trained
    from wsoltrain.selection.comparison import pick_rows, score_method
    from wsoltrain.training.evaluation import Evaluator

    device = torch.device(settings.device)
    trained = load_trained(str(settings.out / settings.first.file_name), device=device)
    labelling = replace(settings.labelling, split=values["test"])
    evaluator = Evaluator(trained.recipe, labelling, settings.root, ["gt"], settings.workers, settings.masks)
    rows = pick_rows(evaluator.truths["gt"], values["shown"])
    by = trained.annotator
    compared.append(score_method(name, trained.model, trained.tau, evaluator, device, rows, by=by))
    return evaluator


def _table(compared: list[Compared], evaluator: Evaluator) -> tuple[dict[str, Any], list[list[str]]]:
    """Figures for scripts, and the table as text: of boxes, or of masks where the truth holds nothing else."""
    from wsolpipe.evaluate.tables import baselines

    lines = [each.line(compared[0]) for each in compared]
    centred = baselines(evaluator.truths["gt"])
    main = compared[0].scores.metric
    figures = BOX_FIGURES if main == "MaxBoxAcc" else MASK_FIGURES
    titles = [title for name in figures for title in (shown_name(name), *(["95 %"] if name in WITH_INTERVAL else []))]
    head = ["", *titles, shown_name("tau"), f"{main} minus {compared[0].name}", "p"]
    table = [head, *(_centred_cells(line) for line in centred), *(_cells(line, figures, main) for line in lines)]
    below = [
        line["name"]
        for line in lines
        if centred and centred[0].accuracy is not None and line["MaxBoxAcc"] < centred[0].accuracy
    ]
    beside = {each.name: {"MaxBoxAcc": each.accuracy, "MaxBoxAccV2": each.v2, "iou": each.iou} for each in centred}
    return {"methods": lines, "baselines": beside, "below_centred_box": below}, table


BOX_FIGURES = ("MaxBoxAcc", "MaxBoxAccV2", "iou")
MASK_FIGURES = ("PxAP", "pixel_iou")
WITH_INTERVAL = ("MaxBoxAcc", "iou", "PxAP")


def _centred_cells(line: Line) -> list[str]:
    accuracy, v2, iou = (
        format_figure(name, value) for name, value in zip(BOX_FIGURES, (line.accuracy, line.v2, line.iou), strict=True)
    )
    return [line.name, accuracy, "", v2, iou, "", "", "", ""]


def _cells(line: dict[str, Any], figures: Sequence[str], main: str) -> list[str]:
    cells = [line["name"]]
    for name in figures:
        cells.append(format_figure(name, line[name]))
        if name in WITH_INTERVAL:
            low, high = (format_figure(name, line["intervals"][name][end]) for end in ("low", "high"))
            cells.append(f"{low} to {high}")
    test = line["against_first"][main] if line["against_first"] else None
    if test is None:
        return [*cells, _threshold(line), "", ""]
    difference = f"{test['difference']:+.1f} ({test['low']:+.1f} to {test['high']:+.1f})"
    return [*cells, _threshold(line), difference, f"{test['p']:.4f}"]


def _threshold(line: dict[str, Any]) -> str:
    if line["tau"] is None:
        return "best (oracle)" if line["oracle"] else "Otsu" if line["MaxBoxAcc"] is not None else ""
    return f"{line['tau']:.3f}"


def _write(
    out: Path,
    compared: list[Compared],
    evaluator: Evaluator,
    settings: Settings,
    table: list[list[str]],
    plots: Mapping[str, Plot],
    below: Sequence[str],
) -> Path:
    from wsoltrain.pages.compare_page import write_compare_page

    page = out / "compare.html"
    names = ", ".join(each.name for each in compared) if len(compared) <= NAMED else f"{len(compared)} recipes"
    title = f"{names} on {settings.labelling.dataset}"
    write_compare_page(
        page, compared, evaluator, Path(settings.root), table,
        title=title, plots=plots, below=below, labels=_labels(settings),
    )  # fmt: skip
    return page
