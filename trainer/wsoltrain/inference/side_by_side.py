"""The same images under the maps of several methods: one sheet, and a page of it with the table of figures."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsolpipe.pages.document import Part, compose_page, open_environment
from wsoltrain.inference.drawing import FAINT, GAP, INK, MARGIN, PAPER, overlay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Cell = tuple[NDArray[np.floating], NDArray[np.floating] | None]

TRUTH, PREDICTED = (255, 255, 255), (255, 90, 46)
SIDE, HEAD = 160, 22
STYLE = "#compare img{max-width:100%;height:auto;border-radius:6px}"
TEMPLATE = """
<header><p class="kicker">wsoltrain compare</p><h1>{{ title }}</h1></header>
<div class="scroll" style="margin:24px 0"><table class="plain">
<thead><tr>{% for cell in head %}<th{% if not loop.first %} class="number"{% endif %}>{{ cell }}</th>
{% endfor %}</tr></thead>
{% for line in lines %}<tr>{% for cell in line %}<td{% if not loop.first %} class="number"{% endif %}>{{ cell }}</td>
{% endfor %}</tr>{% endfor %}</table></div>
<p class="hint">The same images under the map of each method: ground truth white, prediction vermilion.</p>
<img alt="images under the maps of each method" src="data:image/png;base64,{{ picture }}">
"""


def draw_side_by_side(
    pictures: Sequence[NDArray[np.uint8]],
    truths: Sequence[NDArray[np.floating]],
    methods: Mapping[str, Sequence[Cell | None]],
) -> Image.Image:
    """Draw a line for each image: itself, then each method's map with its box; truth white, prediction vermilion.

    Parameters
    ----------
    pictures : sequence of uint8 array [S, S, 3]
        Images squashed to a square.
    truths : sequence of float array [M, 4]
        True boxes of each, xyxy in shares of both sides.
    methods : mapping of str to sequence
        By name, the map [S', S'] in 0..1 and the box (xyxy in shares; None for none) of each image; None for no map.
    """
    columns, lines = 1 + len(methods), len(pictures)
    size = (columns * (SIDE + GAP) + 2 * MARGIN, lines * (SIDE + GAP) + HEAD + 2 * MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, name in enumerate(("image", *methods)):
        pen.text((MARGIN + column * (SIDE + GAP), MARGIN), name, fill=INK if column else FAINT, font=font)
    for line, (pixels, boxes) in enumerate(zip(pictures, truths, strict=True)):
        cells: list[Cell | None] = [None, *(maps[line] for maps in methods.values())]
        for column, cell in enumerate(cells):
            panel = _panel(pixels, cell, boxes)
            sheet.paste(panel, (MARGIN + column * (SIDE + GAP), MARGIN + HEAD + line * (SIDE + GAP)))
    return sheet


def _panel(pixels: NDArray[np.uint8], cell: Cell | None, truth: NDArray[np.floating]) -> Image.Image:
    picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    if cell is not None:
        values = Image.fromarray(cell[0].astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        picture = Image.fromarray(overlay(np.asarray(picture), np.asarray(values).clip(0, 1)))
    pen = ImageDraw.Draw(picture)
    boxes = [(box, TRUTH) for box in truth] + ([(cell[1], PREDICTED)] if cell and cell[1] is not None else [])
    for box, colour in boxes:
        x0, y0, x1, y1 = (round(float(edge) * SIDE) for edge in box)
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=2)
    return picture


def write_page(path: Path, sheet: Image.Image, table: Sequence[Sequence[str]], *, title: str) -> None:
    """Write a page that needs no other file: the table (first line: titles) and the sheet.

    Raises
    ------
    ConfigError
        If jinja2 is not installed.
    """
    stored = io.BytesIO()
    sheet.save(stored, "PNG")
    picture = base64.b64encode(stored.getvalue()).decode()
    template = open_environment().from_string(TEMPLATE)
    html = template.render(title=title, head=table[0], lines=table[1:], picture=picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(compose_page(title, [Part("compare", "", html, STYLE)]), encoding="utf-8")
