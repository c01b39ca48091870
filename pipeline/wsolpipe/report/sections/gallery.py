"""The rows themselves: image, maps, boxes with scores, ground truth; those that are quarantined last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.pages.cards import render_gallery
from wsolpipe.report.page import Section
from wsolpipe.report.row_cards import Fineness, make_gallery
from wsolpipe.report.sample import Pick

if TYPE_CHECKING:
    from wsolpipe.pages.document import Part
    from wsolpipe.report.material import Material

MOST_QUARANTINED = 50


def _draw(material: Material) -> Part | None:
    picks = material.front
    if not picks:
        return None
    bad = [Pick(item["row"], "quarantined") for item in material.quarantined[:MOST_QUARANTINED]]
    return render_gallery(make_gallery(material, [*picks, *bad], fineness=Fineness.of(len(picks))))


SECTION = Section(name="gallery", title="Rows", order=20, draw=_draw)
