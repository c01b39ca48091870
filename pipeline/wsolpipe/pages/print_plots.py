"""Charts for papers: PDF with embedded fonts and PNG, drawn by matplotlib."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.pages.charts import Series, ticks

if TYPE_CHECKING:
    from pathlib import Path

    from wsolpipe.pages.charts import Plot

WIDE, HIGH = 3.5, 2.4  # inches: one column of a two-column paper
BINS, CROWDED = 20, 6
COLOURS = ("#d55e00", "#009e73", "#0072b2", "#7b8492", "#8a5aa8", "#c99700", "#56b4e9", "#15181d")
DASHES = ("-", "--", "-.", ":")


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
        for place, item in enumerate(plot.series):
            _draw(axes, plot.kind, item, COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)])
        axes.set(xlim=(0, 1), ylim=(0, None), xlabel=plot.axis, ylabel="per cent", title=plot.title)
        if plot.span != 1:
            places, labels = zip(*ticks(plot.span), strict=True)
            axes.set_xticks(places, labels)
        axes.legend(frameon=False, fontsize=7 if len(plot.series) < CROWDED else 5.5)
        paths = [stem.with_name(f"{stem.name}{ending}") for ending in (".pdf", ".png")]
        for path in paths:
            figure.savefig(path, dpi=300, metadata={"CreationDate": None} if path.suffix == ".pdf" else None)
    return paths


def _draw(axes: Any, kind: str, item: Any, colour: str, dashes: str) -> None:
    look = {"color": colour, "linestyle": dashes, "label": item.label, "linewidth": 1.4}
    if not isinstance(item, Series):
        axes.plot(item.x, 100 * item.y, **look)
    elif kind == "histogram":
        shares = np.histogram(item.values.clip(0, 1), bins=BINS, range=(0, 1))[0] / max(len(item.values), 1)
        axes.stairs(100 * shares, np.linspace(0, 1, BINS + 1), **look)
    else:
        levels = np.linspace(0, 1, 101)
        reached = 1 - np.searchsorted(np.sort(item.values), levels, side="left") / max(len(item.values), 1)
        axes.plot(levels, 100 * reached, **look)
