"""The rows themselves: image, maps, boxes with scores, ground truth; and the list of all rows where they take pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.pages.cards import render_gallery
from wsolpipe.report.page import Section
from wsolpipe.report.quality import Pick
from wsolpipe.report.row_cards import Fineness, make_gallery, render_list

if TYPE_CHECKING:
    from wsolpipe.pages.document import Part
    from wsolpipe.report.material import Material

MOST_QUARANTINED = 50


def _draw(material: Material) -> list[Part]:
    picks = material.front
    if not picks:
        return []
    bad = [Pick(item["row"], "quarantined") for item in material.quarantined[:MOST_QUARANTINED]]
    cards = render_gallery(make_gallery(material, [*picks, *bad], fineness=Fineness.of(len(picks))))
    return [cards, *([render_list(material, material.pages)] if material.pages else [])]


SECTION = Section(name="rows", title="Rows", order=20, draw=_draw)
