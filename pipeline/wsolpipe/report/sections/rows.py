"""The rows themselves: image, maps, boxes with scores, ground truth, and of the pages beside this one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wsolpipe.pages.gallery import render_gallery
from wsolpipe.report.page import Section
from wsolpipe.report.quality import Pick
from wsolpipe.report.row_cards import Fineness, make_gallery

if TYPE_CHECKING:
    from wsolpipe.pages.document import Part
    from wsolpipe.report.material import Material

MOST_QUARANTINED = 50


def _draw(material: Material) -> list[Part]:
    picks = material.front
    if not picks:
        return []
    bad = [Pick(item["row"], "quarantined") for item in material.quarantined[:MOST_QUARANTINED]]
    gallery = make_gallery(material, [*picks, *bad], fineness=Fineness.of(len(picks)))
    return [render_gallery(replace(gallery, listed=material.listed, folder=material.pages))]


SECTION = Section(name="rows", title="Rows", order=20, draw=_draw)
