"""The page of a comparison: the table of figures, and the same rows under the map of each method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.pages.cards import render_gallery
from wsolpipe.pages.charts import Curve, Plot, draw_figure
from wsolpipe.pages.document import Part, compose_page, open_environment
from wsoltrain.pages.method_cards import make_cards, method_gallery

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wsoltrain.selection.comparison import Compared
    from wsoltrain.training.evaluation import Evaluator

TEMPLATE = """
<header><p class="kicker">wsoltrain compare</p><h1>{{ title }}</h1></header>
<div class="scroll" style="margin:24px 0"><table class="plain">
<thead><tr>{% for cell in head %}<th{% if not loop.first %} class="number"{% endif %}>{{ cell }}</th>
{% endfor %}</tr></thead>
{% for line in lines %}<tr>{% for cell in line %}<td{% if not loop.first %} class="number"{% endif %}>{{ cell }}</td>
{% endfor %}</tr>{% endfor %}</table></div>
{% if below %}<div class="alarm" role="alert"><p><b>Below a centred box: {{ below|join(", ") }}.</b> A box in the
middle of every image, which looks at nothing, finds more objects.</p>
<p>Try <code>{{ labels }}</code>: where the labels that they learned from are below a centred box too, it says what to
try; else more <code>epochs=</code> or another <code>lr=</code>, as <code>wsoltrain search</code> finds it.</p></div>
{% endif %}
<div class="charts" style="margin-top:24px">{% for figure in figures %}{{ figure }}{% endfor %}</div>
"""


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
    head = open_environment().from_string(TEMPLATE).render(
        title=title, head=table[0], lines=table[1:], below=below, labels=labels,
        figures=[draw_figure(plot) for plot in plots.values()],
    )  # fmt: skip
    cards = make_cards(
        evaluator.stream.items.rows, root, {each.name: each.shown for each in compared}, evaluator.truths["gt"]
    )
    gallery = method_gallery(cards, [each.name for each in compared], tau=compared[0].tau)
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [Part("compare", "", head), render_gallery(gallery)]
    path.write_text(compose_page(f"{title} – wsoltrain compare", parts), encoding="utf-8")
