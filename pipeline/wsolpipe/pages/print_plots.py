"""Charts for papers: PDF with embedded fonts and PNG, drawn by matplotlib."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from wsolpipe.pages.charts import NAMED, Series, bar_names, binned, dash_of, reached, ticks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsolpipe.pages.charts import Curve, Plot

WIDE, HIGH = 3.5, 2.4  # inches: one column of a two-column paper
CROWDED = 6
COLOURS = ("#d55e00", "#009e73", "#0072b2", "#7b8492", "#8a5aa8", "#c99700", "#56b4e9", "#15181d")
DASHES = ("-", "--", ":", "-.")
"""In the order of `wsolpipe.pages.charts.DASHES`."""


def can_print() -> bool:
    """Whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def print_plot(plot: Plot, stem: Path) -> list[Path]:
    """Draw a plot as ``<stem>.pdf`` and ``<stem>.png``.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells every step of embedding a font
    settings: Any = {"pdf.fonttype": 42, "font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    with rc_context(settings):
        figure = Figure(figsize=(WIDE, HIGH), layout="constrained")
        axes = figure.add_subplot()
        if plot.kind == "bars":
            figure.set_figheight(0.8 + 0.11 * len(plot.names) * (len(plot.series) + 1))
            _draw_bars(axes, plot)
        elif plot.kind == "points":
            figure.set_figheight(WIDE)
            _draw_points(axes, plot)
        else:
            for place, item in enumerate(plot.series):
                _draw(axes, plot, item, COLOURS[place % len(COLOURS)], DASHES[dash_of(place)])
            axes.set(xlim=(0, 1), ylim=(0, None), xlabel=plot.axis, ylabel="per cent", title=plot.title)
            if plot.span is not None:
                places, labels = zip(*ticks(plot.span), strict=True)
                axes.set_xticks(places, labels)
        if plot.kind in ("histogram", "success", "lines") and len(plot.series) < CROWDED:
            axes.legend(frameon=False, fontsize=7)
        elif plot.kind != "points":  # below the axes, however long it gets
            figure.set_figheight(figure.get_figheight() + 0.05 * len(plot.series))
            figure.legend(frameon=False, fontsize=5.5, ncols=2, loc="outside lower center")
        paths = [stem.with_name(f"{stem.name}{ending}") for ending in (".pdf", ".png")]
        for path in paths:
            figure.savefig(path, dpi=300, metadata={"CreationDate": None} if path.suffix == ".pdf" else None)
    return paths


def _draw(axes: Any, plot: Plot, item: Any, colour: str, dashes: str) -> None:
    look = {"color": colour, "linestyle": dashes, "label": item.label, "linewidth": 1.4}
    if not isinstance(item, Series):
        axes.plot(item.x, 100 * item.y, **look)
    elif plot.kind == "histogram":
        axes.stairs(100 * binned(item, plot.bins), np.linspace(0, 1, plot.bins + 1), **look)
    else:
        levels, shares = reached(item)
        axes.plot(levels, 100 * shares, **look)


def _draw_bars(axes: Any, plot: Plot) -> None:
    """A group of bars a name, from the top down."""
    each = 0.8 / len(plot.series)
    for number, item in enumerate(cast("Sequence[Series]", plot.series)):
        places = np.arange(len(plot.names)) + (number - (len(plot.series) - 1) / 2) * each
        axes.barh(places, 100 * np.nan_to_num(item.values), each, label=item.label, color=COLOURS[number])
    axes.set_yticks(range(len(plot.names)), bar_names(plot))
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="per cent", ylabel=plot.axis, title=plot.title)


def _draw_points(axes: Any, plot: Plot) -> None:
    """Dots with their names, as far as there is room for them."""
    (points,) = cast("Sequence[Curve]", plot.series)
    axes.scatter(points.x, points.y, s=6, color=COLOURS[0], label=points.label)
    for x, y, name in zip(points.x, points.y, plot.names, strict=True) if len(plot.names) <= NAMED else ():
        axes.annotate(name, (x, y), fontsize=5, ha="center", va="bottom")
    axes.invert_yaxis()
    axes.set(aspect="equal", xticks=[], yticks=[], title=plot.title)
