"""The page of a comparison: the table of figures, and the same rows under the map of each method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.pages.charts import Curve, Plot, draw_figure
from wsolpipe.pages.document import compose_page, render, write_page
from wsolpipe.pages.gallery import render_gallery
from wsoltrain.pages.method_cards import make_cards, method_gallery

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsoltrain.inference.shown import Compared
    from wsoltrain.training.scoreboard import Evaluator

TEMPLATES = Path(__file__).parent / "templates"
#: Charts against the threshold: stem of the file, title, curve of `MaxBoxEvaluation`.
BY_THRESHOLD = (
    ("maxboxacc", "MaxBoxAcc against the threshold", "largest 0.5"),
    ("iou", "Mean IoU against the threshold", "largest iou"),
)


def page_plots(compared: Sequence[Compared]) -> dict[str, Plot]:
    """Every chart of the page by the stem of its file: figures of boxes by threshold, precision and recall of masks."""
    drawn = {}
    for stem, title, name in BY_THRESHOLD if compared[0].scores.boxes.rows_scored else ():
        heights = {each.name: each.scores.boxes.curve(name) for each in compared}
        curves = [Curve(label, shares, np.arange(len(shares)) / len(shares)) for label, shares in heights.items()]
        drawn[f"compare-{stem}"] = Plot(title, "threshold", curves)
    found = {each.name: each.scores.pixels.curves() for each in compared if each.scores.pixels is not None}
    lines = [Curve(name, each["precision"], 100 * each["recall"]) for name, each in found.items()]
    if lines:
        drawn["compare-precision"] = Plot("Precision against recall", "recall, per cent", lines, far=100)
    return drawn


def write_compare_page(
    path: Path,
    compared: Sequence[Compared],
    evaluator: Evaluator,
    root: Path,
    table: Sequence[Sequence[str]],
    *,
    title: str,
    plots: Mapping[str, Plot],
    below: Sequence[str] = (),
    labels: str = "",
) -> None:
    """Write a page that needs no other file.

    Parameters
    ----------
    path : Path
        HTML file.
    compared : sequence of Compared
        Methods with the maps of some rows; IoU is that of the first, differences are to the second.
    evaluator : Evaluator
        Whose truth ``gt`` the rows have.
    root : Path
        Folder of the image files.
    table : sequence of sequence of str
        Lines of figures, the first are titles.
    plots : mapping of str to Plot
        Of `page_plots`.
    below : sequence of str
        Methods below a centred box.
    labels : str
        Command that shows the labels that they learned from.

    Raises
    ------
    ConfigError
        If jinja2 is not installed.
    """
    titles = [each if place == 0 else f"#{each}" for place, each in enumerate(table[0])]
    figures = [draw_figure(plot) for plot in plots.values()]
    head = render(
        "compare", "", TEMPLATES, title=title, titles=titles, lines=table[1:], below=below, labels=labels,
        figures=figures,
    )  # fmt: skip
    rows, shown = evaluator.stream.items.rows, {each.name: each.shown for each in compared}
    cards = make_cards(rows, root, shown, evaluator.truths["gt"])
    gallery = render_gallery(
        method_gallery(cards, list(shown), tau=compared[0].scored.threshold.tau, indexes={"": rows.index})
    )
    write_page(path, compose_page(f"{title} – wsoltrain compare", [head, gallery]))
