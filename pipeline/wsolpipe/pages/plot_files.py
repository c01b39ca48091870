"""Plots as files: SVG that stands alone, and PDF and PNG for papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from markupsafe import Markup

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.writing import reason
from wsolpipe.pages.charts import HEIGHT, LEFT, WIDTH, histogram, lines, success
from wsolpipe.pages.print_plots import BINS, can_print, print_plot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wsolpipe.pages.charts import Curve, Plot, Series

HEAD, LINE = 44.0, 16
STYLES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
INKS = ("#d8401a", "#2f8f83", "#3b5fae", "#7b8492", "#8a5aa8", "#c99700", "#56b4e9", "#15181d")
COLOURS = dict(zip(STYLES, INKS, strict=True))
SHEET = (
    "svg{font:12px system-ui,sans-serif;fill:#5a6370}.rule{stroke:#dfe3e8}.line{fill:none;stroke-width:2}"
    ".title{font-size:15px;font-weight:650;fill:#15181d}"
    + "".join(f".line.{name}{{stroke:{colour}}}.{name}{{fill:{colour}}}" for name, colour in COLOURS.items())
    + ".line{fill:none}"
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
    """A plot as an SVG file that stands alone."""
    chart: Markup
    if plot.kind == "histogram":
        chart = histogram(cast("Sequence[Series]", plot.series), bins=BINS, title=plot.title, axis=plot.axis)
    elif plot.kind == "success":
        chart = success(cast("Sequence[Series]", plot.series), title=plot.title, axis=plot.axis)
    else:
        chart = lines(cast("Sequence[Curve]", plot.series), title=plot.title, axis=plot.axis, span=plot.span)
    return standalone(chart, plot.title, plot.series)


def standalone(chart: Markup, title: str, series: Sequence[Series | Curve]) -> str:
    """An SVG file of a chart, with title, legend and colours of its own."""
    marks, left, top = Markup(""), LEFT, 0
    for item in series:
        wide = 36 + 7 * len(item.label)
        if left > LEFT and left + wide > WIDTH:
            left, top = LEFT, top + LINE
        marks += Markup(
            '<rect class="{}" x="{:.0f}" y="{}" width="14" height="4"/><text x="{:.0f}" y="{}">{}</text>'
        ).format(item.style, left, 28 + top, left + 20, 34 + top, item.label)
        left += wide
    # Markup.replace would escape what it puts in.
    inner = str(chart).replace("<svg ", f'<svg y="{HEAD + top:g}" width="{WIDTH:g}" height="{HEIGHT:g}" ', 1)
    high = HEIGHT + HEAD + top
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:g} {:g}" width="{:g}" height="{:g}">'
            '<style>{}</style><rect width="100%" height="100%" fill="#fff"/>'
            '<text class="title" x="54" y="20">{}</text>{}{}</svg>\n'
        ).format(WIDTH, high, 1.5 * WIDTH, 1.5 * high, Markup(SHEET), title, marks, Markup(inner))
    )
