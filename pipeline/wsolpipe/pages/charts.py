"""Charts: one description of what is shown, drawn by matplotlib on pages and into files for papers."""

from __future__ import annotations

import csv
import io
import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError, raise_as, reason
from wsolpipe.pages.document import open_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from markupsafe import Markup

Array = np.ndarray[Any, Any]

#: Colours on white by the names that the page's style gives them, where dark pages have others.
COLOURS = {
    "top1": "#d8401a", "otsu": "#2f8f83", "third": "#3b5fae", "centre": "#7b8492", "fifth": "#8a5aa8",
    "sixth": "#c99700", "seventh": "#56b4e9", "ink": "#15181d", "best5": "#f0a184", "cut": "#0072b2",
}  # fmt: skip
SOFT, RULE = "#5a6370", "#dfe3e8"
#: Colours of curves that name none.
ORDER = tuple(COLOURS)[:8]
DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1.5, 1.5)))
CSS_DASHES = ("none", "9 4", "2.5 3.5", "9 3 2.5 3")
ON_PAGE, IN_PRINT = (5.6, 2.6), (3.5, 2.4)  # inches; one column of a two-column paper
#: Curves up to which a legend fits into the axes.
CROWDED = 6
LONGEST_NAME = 24
_LATEX = {
    "\\": r"\textbackslash{}", "%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "*": r"\textsuperscript{*}",
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """One set of values in a chart.

    Attributes
    ----------
    label : str
        For the legend.
    y : float [N]
        Shares, which are shown in per cent; NaN where there is none.
    x : float [N]
        Places on the horizontal axis; of ``steps`` the N + 1 edges; nothing for ``bars``.
    colour : str
        Name in `COLOURS`; that of its place in the chart where empty.
    """

    label: str
    y: Array
    x: Array | None = None
    colour: str = ""


@dataclass(frozen=True)
class Plot:
    """Data of a chart.

    Attributes
    ----------
    title, axis : str
        Heading, and name of the horizontal axis; of ``bars``, what their names are.
    curves : sequence of Curve
    kind : str
        ``lines``, ``steps`` (columns of a histogram, the first one filled) or ``bars`` (a value a name).
    far : float
        Right end of the horizontal axis, which begins at 0.
    names, counts : sequence of str, of int
        Of ``bars``, what each value is of, and how many rows.
    """

    title: str
    axis: str
    curves: Sequence[Curve]
    kind: str = "lines"
    far: float = 1.0
    names: Sequence[str] = ()
    counts: Sequence[int] = ()

    def look(self, number: int) -> tuple[str, int]:
        """Name of the colour, and place in `DASHES`, of the n-th curve; no two of 32 without a colour are alike."""
        dash = (number + number // len(ORDER)) % len(DASHES)
        return self.curves[number].colour or ORDER[number % len(ORDER)], dash


def histogram(label: str, values: Array, *, bins: int = 20, far: float = 1.0, colour: str = "") -> Curve:
    """The share of values [N] of 0..1 in each of some columns, whose edges go from 0 to `far`."""
    counts, edges = np.histogram(values.clip(0, 1), bins=bins, range=(0, 1))
    return Curve(label, counts / max(len(values), 1), far * edges, colour)


def reached(label: str, values: Array, *, colour: str = "") -> Curve:
    """The share of values [N] of 0..1 that reach each level of 0, 1 … 100 per cent."""
    levels = np.linspace(0, 1, 101)
    below = np.searchsorted(np.sort(values), levels, side="left")
    return Curve(label, 1 - below / max(len(values), 1), 100 * levels, colour)


def draw_figure(plot: Plot) -> Markup:
    """A chart as a figure of a page; bars as a table, so that names and values can be read and copied.

    Raises
    ------
    ConfigError
        If matplotlib or jinja2 is not installed.
    """
    from markupsafe import Markup

    looks = [plot.look(number) for number in range(len(plot.curves))]
    legend = [(curve.label, colour, CSS_DASHES[dash]) for curve, (colour, dash) in zip(plot.curves, looks, strict=True)]
    drawn = "" if plot.kind == "bars" else Markup(_inline(plot))
    return Markup(open_environment().get_template("figure.html").render(plot=plot, drawn=drawn, legend=legend))


def save_plots(folder: Path, plots: Mapping[str, Plot]) -> list[Path]:
    """Write charts by the stems of their files: SVG, PDF with embedded fonts, PNG, and their values as CSV.

    Raises
    ------
    ConfigError
        If the folder cannot be written, or matplotlib is not installed.
    """
    paths: list[Path] = []
    with _into(folder):
        for name, plot in plots.items():
            figure = _figure(plot, IN_PRINT)
            for ending in ("svg", "pdf", "png"):
                paths.append(folder / f"{name}.{ending}")
                _save(figure, paths[-1], ending, plot.title)
            paths.append(folder / f"{name}.csv")
            with paths[-1].open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows([("curve", plot.axis, "per cent"), *_values(plot)])
    return paths


def escaped(text: str) -> str:
    """Return a text as LaTeX prints it."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda match: _LATEX[match[0]], text)


def latex_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, columns: str, notes: Iterable[str] = ()
) -> str:
    """Return a table of texts as LaTeX with booktabs.

    Parameters
    ----------
    head : sequence of str
        Lines above the rule, LaTeX already.
    rows : iterable of sequence of str
        Cells, plain text.
    columns : str
        Their alignment, such as ``lrr``.
    notes : iterable of str
        Lines below the table, plain text.
    """
    lines = [r"\begin{table}", rf"\caption{{{escaped(caption)}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [rf"{line} \\" for line in head]
    lines += [r"\midrule", *(" & ".join(map(escaped, cells)) + r" \\" for cells in rows)]
    lines += [r"\bottomrule", r"\end{tabular}", *(rf"\par {escaped(note)}" for note in notes)]
    return "\n".join([*lines, r"\end{table}", ""])


def save_table(folder: Path, table: Sequence[Sequence[str]], *, caption: str) -> list[Path]:
    """Write a table of texts, titles first, as ``table.csv`` and ``table.tex``; raises as `save_plots`."""
    with _into(folder):
        with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(table)
        columns = f"l{'r' * (len(table[0]) - 1)}"
        text = latex_table([" & ".join(map(escaped, table[0]))], table[1:], caption=caption, columns=columns)
        (folder / "table.tex").write_text(text, encoding="utf-8")
    return [folder / "table.csv", folder / "table.tex"]


@contextmanager
def _into(folder: Path) -> Iterator[None]:
    """Make a folder of plots, in which files are written."""
    hint = "name a folder, such as plots=plots"
    with raise_as(ConfigError, f"plots={folder} cannot be written", OSError, hint=hint, say=reason):
        folder.mkdir(parents=True, exist_ok=True)
        yield


def _values(plot: Plot) -> Iterator[tuple[str, str, str]]:
    """(curve, place, value in per cent) of every point."""
    for curve in plot.curves:
        for x, y in zip(plot.names if curve.x is None else curve.x, curve.y, strict=False):
            yield curve.label, x if isinstance(x, str) else f"{x:.6g}", f"{100 * y:.6g}" if np.isfinite(y) else ""


def _inline(plot: Plot) -> str:
    """A chart as SVG in the colours of the page's style, without a title and legend."""
    sink = io.StringIO()
    _save(_figure(plot, ON_PAGE, bare=True), sink, "svg", plot.title)
    dropped = r'<metadata>.*?</metadata>|<defs>\s*<(style|clipPath).*?</defs>| clip-path="\S+"| id="[a-z]+\S*?_\d+"|\n'
    text = re.sub(dropped, "", sink.getvalue()[sink.getvalue().index("<svg") :], flags=re.S)
    for name, ink in (*COLOURS.items(), ("soft", SOFT), ("rule", RULE)):
        text = text.replace(ink, f"var(--{name})")
    return text


def _save(figure: Any, sink: Any, ending: str, salt: str) -> None:
    from matplotlib import rc_context

    # A fixed salt and no date: the same chart has the same bytes.
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": salt, "pdf.fonttype": 42}
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with rc_context(settings):
        figure.savefig(sink, format=ending, dpi=300, metadata=dates.get(ending), transparent=hasattr(sink, "getvalue"))


def _figure(plot: Plot, size: tuple[float, float], *, bare: bool = False) -> Any:
    with raise_as(ConfigError, "charts need matplotlib", ImportError, hint="pip install 'wsolpipe[report]'", say=str):
        from matplotlib.figure import Figure
    from matplotlib import rc_context

    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells every step of embedding a font
    settings: Any = {
        "font.size": 9 if bare else 8, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": RULE,
        "axes.labelcolor": SOFT, "xtick.color": SOFT, "ytick.color": SOFT, "grid.color": RULE,
    }  # fmt: skip
    with rc_context(settings):
        figure = Figure(figsize=size, layout=None if bare else "constrained")
        axes = figure.add_axes((0.11, 0.17, 0.86, 0.78)) if bare else figure.add_subplot()
        if plot.kind == "bars":
            figure.set_figheight(0.8 + 0.11 * len(plot.names) * (len(plot.curves) + 1))
            _draw_bars(axes, plot)
        else:
            _draw_curves(axes, plot)
        if bare:
            return figure
        axes.set_title(plot.title)
        if plot.kind != "bars" and len(plot.curves) < CROWDED:
            axes.legend(frameon=False, fontsize=7)
        else:  # below the axes, however long it gets
            figure.set_figheight(figure.get_figheight() + 0.05 * len(plot.curves))
            figure.legend(frameon=False, fontsize=5.5, ncols=2, loc="outside lower center")
    return figure


def _draw_curves(axes: Any, plot: Plot) -> None:
    """Lines or steps; earlier curves lie above later ones."""
    axes.grid(axis="y")
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.locator_params("x", nbins=5, integer=plot.far > 1)
    for number, curve in enumerate(plot.curves):
        colour, dash = plot.look(number)
        look = {"label": curve.label, "color": COLOURS[colour], "linestyle": DASHES[dash], "zorder": 40 - number}
        if plot.kind == "steps":
            axes.stairs(100 * curve.y, curve.x, fill=number == 0, linewidth=1.4, **look)
        else:
            axes.plot(curve.x, 100 * curve.y, linewidth=2.2 if colour == "top1" else 1.5, **look)
    axes.set(xlim=(0, plot.far), ylim=(0, 100 if plot.kind == "lines" else None), xlabel=plot.axis)


def _draw_bars(axes: Any, plot: Plot) -> None:
    """A group of bars a name, from the top down."""
    each = 0.8 / len(plot.curves)
    for number, curve in enumerate(plot.curves):
        places = np.arange(len(plot.names)) + (number - (len(plot.curves) - 1) / 2) * each
        axes.barh(places, 100 * np.nan_to_num(curve.y), each, label=curve.label, color=COLOURS[plot.look(number)[0]])
    names = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in plot.names]
    if plot.counts:
        names = [f"{name} ({rows:,})" for name, rows in zip(names, plot.counts, strict=True)]
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="per cent", ylabel=plot.axis)
