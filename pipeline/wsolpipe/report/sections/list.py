"""Every row of a report that is more than one page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.report.page import Section
from wsolpipe.report.row_pages import render_list

if TYPE_CHECKING:
    from wsolpipe.pages.document import Part
    from wsolpipe.report.material import Material


def _draw(material: Material) -> Part | None:
    return render_list(material, material.pages) if material.pages else None


SECTION = Section(name="all", title="All rows", order=25, draw=_draw)
