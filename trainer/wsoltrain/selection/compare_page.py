"""The page of a comparison: the table of figures, and the same rows under the map of each method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.pages.cards import render_gallery
from wsolpipe.pages.document import Part, compose_page, open_environment
from wsoltrain.selection.method_cards import make_cards, method_gallery

if TYPE_CHECKING:
    from collections.abc import Sequence
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
{% if note %}<p class="alarm">{{ note }}</p>{% endif %}
"""


def write_compare_page(
    path: Path,
    compared: Sequence[Compared],
    evaluator: Evaluator,
    root: Path,
    table: Sequence[Sequence[str]],
    *,
    title: str,
    note: str = "",
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
    note : str
        What the table warns of.

    Raises
    ------
    ConfigError
        If jinja2 is not installed.
    """
    head = open_environment().from_string(TEMPLATE).render(title=title, head=table[0], lines=table[1:], note=note)
    cards = make_cards(
        evaluator.stream.items.rows, root, {each.name: each.shown for each in compared}, evaluator.truths["gt"]
    )
    gallery = method_gallery(cards, [each.name for each in compared], tau=compared[0].tau)
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [Part("compare", "", head), render_gallery(gallery)]
    path.write_text(compose_page(f"{title} – wsoltrain compare", parts), encoding="utf-8")
