"""Plots as files: SVG that stands alone, and PDF and PNG for papers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.writing import reason
from wsolpipe.pages.charts import DASH_RULES, LEFT, STYLES, WIDTH, draw_chart
from wsolpipe.pages.print_plots import can_print, print_plot

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from wsolpipe.pages.charts import Plot

HEAD, LINE = 44.0, 16
INKS = ("#d8401a", "#2f8f83", "#3b5fae", "#7b8492", "#8a5aa8", "#c99700", "#56b4e9", "#15181d")
#: Colours of series on white, those of the page's light style.
COLOURS = dict(zip(STYLES, INKS, strict=True)) | {
    "top1": "#d8401a", "best5": "#f0a184", "otsu": "#2f8f83", "map": "#2f8f83", "cut": "#0072b2", "centre": "#7b8492",
}  # fmt: skip
SHEET = (
    "svg{font:12px system-ui,sans-serif;fill:#5a6370}.rule{stroke:#dfe3e8}.line{fill:none;stroke-width:2}"
    ".title{font-size:15px;font-weight:650;fill:#15181d}"
    + "".join(f".line.{name}{{stroke:{ink}}}.column.{name}{{fill:{ink}}}" for name, ink in COLOURS.items())
    + DASH_RULES
)


def save_plots(folder: Path, plots: Mapping[str, Plot]) -> list[Path]:
    """Write plots by the stems of their files; as PDF (fonts embedded) and PNG too where matplotlib is installed.

    Raises
    ------
    ConfigError
        If the folder cannot be written.
    """
    paths: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, plot in plots.items():
            paths.append(folder / f"{name}.svg")
            paths[-1].write_text(draw_svg(plot), encoding="utf-8")
            if can_print():
                paths += print_plot(plot, folder / name)
    except OSError as error:
        msg = f"plots={folder} cannot be written: {reason(error)}"
        raise ConfigError(msg, hint="name a folder, such as plots=plots") from error
    return paths


def draw_svg(plot: Plot) -> str:
    """A plot as an SVG file that stands alone, with title, legend and colours of its own."""
    marks, left, top = Markup(""), LEFT, 0
    for item in plot.series:
        wide = 46 + 7 * len(item.label)
        if left > LEFT and left + wide > WIDTH:
            left, top = LEFT, top + LINE
        marks += Markup(
            '<line class="line {}" x1="{:.0f}" y1="{}" x2="{:.0f}" y2="{}"/><text x="{:.0f}" y="{}">{}</text>'
        ).format(item.style, left, 30 + top, left + 26, 30 + top, left + 32, 34 + top, item.label)
        left += wide
    # Markup.replace would escape what it puts in.
    place = f'<svg y="{HEAD + top:g}" width="{WIDTH:g}" height="{plot.height:g}" '
    inner = str(draw_chart(plot)).replace("<svg ", place, 1)
    high = plot.height + HEAD + top
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:g} {:g}" width="{:g}" height="{:g}">'
            '<style>{}</style><rect width="100%" height="100%" fill="#fff"/>'
            '<text class="title" x="54" y="20">{}</text>{}{}</svg>\n'
        ).format(WIDTH, high, 1.5 * WIDTH, 1.5 * high, Markup(SHEET), plot.title, marks, Markup(inner))
    )
