"""Several recipes trained, each chosen by its annotator, and all scored on the same images, with a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.evaluate.glossary import UNITS, format_figure, shown_name
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class
from wsoltrain.runs.evaluate import align
from wsoltrain.runs.many import Site, Training, refuse_failed, run_trainings
from wsoltrain.runs.settle import A_SPLIT, PLOTS, RECIPE, SITE_KEYS, TRAINING, settle_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from wsoltrain.inference.shown import Compared
    from wsoltrain.training.settings import Settings

SHARED = (
    "dataset", "store", "root", "images", "split", "val", "val_rows_per_class", "by", "metric", "workers", "device",
    "save_every",
)  # fmt: skip


class _OwnKeys:
    """Keys that only ``wsoltrain compare`` has.

    Attributes
    ----------
    recipes
        recipes, the first one is what others are tested against
    test
        split on which all are scored, against its ground truth
    out
        folder of all runs and of the page
    shown
        images on the page
    """

    recipes = Key(kinds.list_of(RECIPE))
    test = Key(A_SPLIT, "test")
    out = Key(kinds.file("folder"), otherwise="compare/<dataset>")
    shown = Key(kinds.integer(1), 24)


RECIPES, *OWN = keys_of_class(_OwnKeys)
KEYS = (RECIPES, *(key for key in TRAINING if key.name in SHARED), *OWN, PLOTS, *SITE_KEYS)
#: Recipes that the page's title names; of more it gives the number.
NAMED = 4
FIGURES = ("MaxBoxAcc", "iou", "PxAP", "pixel_iou")
BOX_FIGURES = ("MaxBoxAcc", "MaxBoxAccV2", "iou")
MASK_FIGURES = ("PxAP", "pixel_iou")
WITH_INTERVAL = ("MaxBoxAcc", "iou", "PxAP")


def compare(
    values: Mapping[str, Any], words: Sequence[str], profile: tuple[str, ...]
) -> tuple[dict[str, Any], list[str]]:
    """Train what is not trained, score all, and write the page.

    Parameters
    ----------
    values : mapping
        Of `KEYS`.
    words : sequence of str
        As they were given; those that are not of this command alone go to every training.
    profile : tuple of str
        Of the site.

    Returns
    -------
    dict, list of str
        Figures for scripts, and lines of text.

    Raises
    ------
    ConfigError
        If a recipe is named twice, or the words of one do not fit; before any is trained.
    RunFailed
        If a training failed.
    """
    from wsolpipe.pages.charts import save_plots, save_table
    from wsoltrain.pages.method_cards import page_plots, write_compare_page
    from wsoltrain.runs.score import compare_chosen

    names = [Path(name).stem for name in values["recipes"]]
    if len(set(names)) < len(names):
        msg = f"recipes={','.join(values['recipes'])} names one twice"
        raise ConfigError(msg)
    own = {key.name for key in KEYS} - set(SHARED)
    shared = [word for word in words if word.partition("=")[0] not in own]
    settled = [settle_words((*shared, f"recipe={recipe}")) for recipe in values["recipes"]]  # before any is trained
    out = Path(values["out"] or f"compare/{settled[0].settings.labelling.dataset}")
    trainings = [
        Training.at(out / name, (*shared, f"recipe={recipe}"))
        for name, recipe in zip(names, values["recipes"], strict=True)
    ]
    failed = run_trainings(trainings, Site(values["cluster"], values["parallel"], profile), out / "logs")
    refuse_failed(failed, "the same command resumes; recipes that are trained are only scored")
    compared: list[Compared] = []
    for training in trainings:
        settings = settle_words(training.words).settings
        found, evaluator = compare_chosen(training.name, settings, values["test"], values["shown"])
        compared.append(found)
    result, table = _tabulate(compared)
    below, plots, labels = result["below_centred_box"], page_plots(compared), _labels(settings)
    page = out / "compare.html"
    title = ", ".join(names) if len(names) <= NAMED else f"{len(names)} recipes"
    write_compare_page(
        page, compared, evaluator, Path(settings.root), table, title=f"{title} on {settings.labelling.dataset}",
        plots=plots, below=below, labels=labels,
    )  # fmt: skip
    files = []
    if values["plots"]:
        folder, caption = Path(values["plots"]), f"Scores on {values['test']} of {settings.labelling.dataset}."
        files = [str(path) for path in (*save_plots(folder, plots), *save_table(folder, table, caption=caption))]
    result |= {"split": values["test"], "page": str(page), **({"plots": files} if files else {})}
    lines = [*align(table), UNITS]
    if below:
        lines.append(f"below a centred box: {', '.join(below)}; their labels, and what to try: {labels}")
    return result, [*lines, f"{page}: the same images side by side", *files]


def _labels(settings: Settings) -> str:
    """Return the command that shows the labels of a training, and what to try where they are below a centred box."""
    labels = settings.labelling
    return f"wsolpipe report dataset={labels.dataset} store={labels.store} split={labels.split}"


def _tabulate(compared: Sequence[Compared]) -> tuple[dict[str, Any], list[list[str]]]:
    """Return figures for scripts, and the table as text: of boxes, or of masks where the truth holds nothing else."""
    from wsolpipe.evaluate.scored import score_beside

    lines = [_line(each, compared[0]) for each in compared]
    centred = [each.line() for each in score_beside(compared[0].scores.truth)]
    main = compared[0].scores.metric
    figures = BOX_FIGURES if main == "MaxBoxAcc" else MASK_FIGURES
    titles = [title for name in figures for title in (shown_name(name), *(["95 %"] if name in WITH_INTERVAL else []))]
    table = [["", *titles, shown_name("tau"), f"{main} minus {compared[0].name}", "p"]]
    for line in centred:
        shown = [
            format_figure(name, value) for name, value in zip(figures, (line.accuracy, line.v2, line.iou), strict=True)
        ]
        table.append([line.name, shown[0], "", shown[1], shown[2], "", "", "", ""])
    table += [list(_cells(line, figures, main)) for line in lines]
    reached = next((line.accuracy for line in centred), None)
    below = [line["name"] for line in lines if reached is not None and line["MaxBoxAcc"] < reached]
    beside = {each.name: {"MaxBoxAcc": each.accuracy, "MaxBoxAccV2": each.v2, "iou": each.iou} for each in centred}
    return {"methods": lines, "baselines": beside, "below_centred_box": below}, table


def _line(one: Compared, first: Compared) -> dict[str, Any]:
    """Return figures, intervals, and the paired test against the first method (None for that one itself)."""
    scored = one.scored
    found = scored.figures()
    figures = {name: found.get(name) for name in FIGURES} | {
        "MaxBoxAccV2": (found.get("MaxBoxAccV2") or {}).get("mean")
    }
    about = {"name": one.name, "by": one.by, "tau": scored.threshold.tau, "oracle": scored.threshold.oracle}
    tests = None if one is first else scored.tests(first.scored)
    return {**about, **figures, "intervals": scored.intervals(), "against_first": tests}


def _cells(line: Mapping[str, Any], figures: Sequence[str], main: str) -> Iterator[str]:
    yield line["name"]
    for name in figures:
        yield format_figure(name, line[name])
        if name in WITH_INTERVAL:
            low, high = (format_figure(name, line["intervals"][name][end]) for end in ("low", "high"))
            yield f"{low} to {high}"
    if line["tau"] is not None:
        yield f"{line['tau']:.3f}"
    else:
        yield "best (oracle)" if line["oracle"] else "Otsu"
    test = line["against_first"][main] if line["against_first"] else None
    if test is None:
        yield from ("", "")
    else:
        yield from (f"{test['difference']:+.1f} ({test['low']:+.1f} to {test['high']:+.1f})", f"{test['p']:.4f}")
