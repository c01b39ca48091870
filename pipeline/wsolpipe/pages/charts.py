"""What a chart shows (`Plot`), and its drawing as inline SVG coloured by the page's style, without a library."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, Any]

WIDTH, HEIGHT = 560.0, 264.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 16.0, 14.0, 52.0
NAMED = 60
"""Points up to which each carries its name."""
BAR, BAR_LEFT, LONGEST_NAME = 14.0, 214.0, 24
STYLES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
DASHES = ("none", "9 4", "2.5 3.5", "9 3 2.5 3")
DASH_RULES = "".join(f".dash{place}{{stroke-dasharray:{dash}}}" for place, dash in enumerate(DASHES))
PER_CENT = 100
"""`Plot.span` of shares and IoU, which are shown in per cent."""


@dataclass(frozen=True)
class Series:
    """One set of values in a chart.

    Attributes
    ----------
    style : str
        CSS classes; colours and dashes come from the page.
    label : str
        For the legend.
    values : float [N]
        In 0..1, without NaN.
    """

    style: str
    label: str
    values: Array


@dataclass(frozen=True)
class Curve:
    """Points of a line.

    Attributes
    ----------
    style, label : str
        As of `Series`.
    x, y : float [N]
        In 0..1; points with NaN are left out.
    """

    style: str
    label: str
    x: Array
    y: Array


@dataclass(frozen=True)
class Plot:
    """What a chart shows, whichever way it is drawn.

    Attributes
    ----------
    title, axis : str
        Heading, and name of the horizontal axis, which goes from 0 to 1; of ``bars``, what their names are.
    series : sequence of Series or Curve
    kind : str
        ``histogram`` (rows by value), ``success`` (share of rows that reach a value), ``lines``, ``bars`` (a value a
        name, NaN where there is none) or ``points`` (places in a square, each with a name).
    span : int, optional
        What 1 on the horizontal axis stands for where that is not 1.0: `PER_CENT`, the last epoch, the last step.
    bins : int
        Of a histogram.
    names, counts : sequence of str, of int
        Of ``bars``, what each value is of, and how many rows; of ``points``, the name of each.
    """

    title: str
    axis: str
    series: Sequence[Series | Curve]
    kind: str = "lines"
    span: int | None = None
    bins: int = 20
    names: Sequence[str] = ()
    counts: Sequence[int] = ()

    @property
    def height(self) -> float:
        """Of its drawing."""
        if self.kind == "bars":
            return TOP + BOTTOM + len(self.names) * (BAR * len(self.series) + 8)
        return WIDTH if self.kind == "points" else HEIGHT


def style_of(number: int) -> str:
    """CSS classes of the n-th line of a chart: colour and dashes; no two of 32 are alike."""
    return f"{STYLES[number % len(STYLES)]} dash{dash_of(number)}"


def dash_of(number: int) -> int:
    """Place in `DASHES` of the n-th line of a chart."""
    return (number + number // len(STYLES)) % len(DASHES)


def ticks(span: int | None) -> list[tuple[float, str]]:
    """Places in 0..1 of an axis and what is written there: five tenths without a span, else whole numbers."""
    if span is None:
        return [(tick, f"{tick:.1f}") for tick in np.linspace(0, 1, 6).tolist()]
    step = next(each for ten in itertools.count() for each in (10**ten, 2 * 10**ten, 5 * 10**ten) if 6 * each >= span)
    return [(number / span, f"{number:,}") for number in range(0, span + 1, step)]


def binned(series: Series, bins: int) -> Array:
    """Share of a series' rows in each bin of 0..1."""
    return np.asarray(np.histogram(series.values.clip(0, 1), bins=bins, range=(0, 1))[0] / max(len(series.values), 1))


def reached(series: Series) -> tuple[Array, Array]:
    """Levels 0, 0.01 … 1, and the share of a series' rows whose value reaches each."""
    levels = np.linspace(0, 1, 101)
    below = np.searchsorted(np.sort(series.values), levels, side="left")
    return levels, np.asarray(1 - below / max(len(series.values), 1))


def draw_figure(plot: Plot) -> Markup:
    """A plot as a figure of a page; bars as a table, so that names and values can be read and copied."""
    drawn = _table(plot) if plot.kind == "bars" else draw_chart(plot) + legend(plot.series)
    return Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(plot.title, drawn)


def draw_chart(plot: Plot) -> Markup:
    """A plot as SVG."""
    draw = {"histogram": _histogram, "success": _success, "lines": _lines, "bars": _bars, "points": _points}[plot.kind]
    return Markup(
        '<svg class="chart" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}'
        '<text class="axis" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text></svg>'
    ).format(
        WIDTH, plot.height, plot.title, Markup("").join(draw(plot)), (_x(0) + _x(1)) / 2, plot.height - 6,
        f"per cent, by {plot.axis}" if plot.kind == "bars" else plot.axis,
    )  # fmt: skip


def legend(series: Sequence[Series | Curve]) -> Markup:
    """Names of the series with their lines, as a list."""
    item = Markup(
        '<li><svg class="swatch" viewBox="0 0 26 6"><line class="line {}" x2="26" y1="3" y2="3"/></svg>{}</li>'
    )
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(item.format(s.style, s.label) for s in series))


def _histogram(plot: Plot) -> list[Markup]:
    """The first series as filled columns, the others as outlined steps."""
    series = cast("Sequence[Series]", plot.series)
    counts = [binned(item, plot.bins) for item in series]
    top = _round_up(max(float(part.max(initial=0)) for part in counts))
    shapes = [_grid(plot, _percents(top), top)]
    edges, unit = np.linspace(0, 1, plot.bins + 1), plot.span or 1
    for number, (item, part) in enumerate(zip(series, counts, strict=True)):
        if number == 0:
            shapes += [
                Markup(
                    '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
                ).format(
                    f"column {item.style}",
                    _x(near) + 1,
                    _y(share / top),
                    _x(far) - _x(near) - 2,
                    _y(0) - _y(share / top),
                    f"{item.label}, {unit * near:.3g} to {unit * far:.3g}: {share:.1%} of rows",
                )
                for near, far, share in zip(edges[:-1], edges[1:], part, strict=True)
                if share
            ]
        else:
            points = [(_x(0), _y(0))]
            for near, far, share in zip(edges[:-1], edges[1:], part, strict=True):
                points += [(_x(near), _y(share / top)), (_x(far), _y(share / top))]
            shapes.append(_line([*points, (_x(1), _y(0))], item))
    return shapes


def _success(plot: Plot) -> list[Markup]:
    """Share of rows whose value reaches each level of 0..1."""
    shapes = [_grid(plot, _percents(1.0), 1.0)]
    for item in reversed(cast("Sequence[Series]", plot.series)):
        shapes.append(_line([(_x(level), _y(share)) for level, share in zip(*reached(item), strict=True)], item))
    return shapes


def _lines(plot: Plot) -> list[Markup]:
    """Lines over 0..1, as shares; later ones lie below earlier ones."""
    shapes = [_grid(plot, _percents(1.0), 1.0)]
    for item in reversed(cast("Sequence[Curve]", plot.series)):
        known = np.isfinite(item.x) & np.isfinite(item.y)
        points = zip(item.x[known].tolist(), item.y[known].tolist(), strict=True)
        shapes.append(_line([(_x(x), _y(y)) for x, y in points], item))
    return shapes


def _bars(plot: Plot) -> list[Markup]:
    """A group of bars a name, from the left."""
    series, wide = cast("Sequence[Series]", plot.series), WIDTH - BAR_LEFT - 3 * RIGHT
    text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    bar = Markup('<rect class="column {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    shapes, top = [], TOP
    for place, name in enumerate(bar_names(plot)):
        shapes.append(text.format(BAR_LEFT - 8, top + BAR * len(series) / 2 + 4, "end", name))
        for item in series:
            value = float(item.values[place])
            if np.isfinite(value):
                shapes.append(bar.format(item.style, BAR_LEFT, top + 1, wide * value, BAR - 2))
                shapes.append(text.format(BAR_LEFT + wide * value + 5, top + BAR - 3, "start", f"{100 * value:.1f}"))
            top += BAR
        top += 8
    return shapes


def _points(plot: Plot) -> list[Markup]:
    """Dots with their names, as far as there is room for them."""
    (points,) = cast("Sequence[Curve]", plot.series)
    dot = Markup('<circle class="column {}" cx="{:.1f}" cy="{:.1f}" r="5"><title>{}</title></circle>')
    text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>')
    shapes = []
    for x, y, name in zip(points.x, points.y, plot.names, strict=True):
        across, down = (BOTTOM + float(place) * (WIDTH - 2 * BOTTOM) for place in (x, y))
        shapes.append(dot.format(points.style, across, down, name))
        shapes += [text.format(across, down - 9, name)] if len(plot.names) <= NAMED else []
    return shapes


def bar_names(plot: Plot) -> list[str]:
    """Names of the bars with their rows, cut to what fits beside them."""
    names = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in plot.names]
    return [f"{name} ({rows:,})" for name, rows in zip(names, plot.counts, strict=True)] if plot.counts else names


def _table(plot: Plot) -> Markup:
    """Bars as a table: the first series as a bar, the second one's place on it as a tick where it is a centred box."""
    series = cast("Sequence[Series]", plot.series)
    ticked = len(series) > 1 and series[1].style == "centre"
    head = Markup('<th scope="col" class="number">{}</th>')
    bar, tick = Markup('<i class="{}" style="width:{:.1f}%"></i>'), Markup('<u style="left:{:.1f}%"></u>')
    lines = []
    for place, name in enumerate(plot.names):
        values = [float(item.values[place]) for item in series]
        drawn = bar.format(series[0].style, 100 * values[0]) if np.isfinite(values[0]) else Markup("")
        drawn += tick.format(100 * values[1]) if ticked else Markup("")
        cells = [f"{plot.counts[place]:,}"] if plot.counts else []
        shown = [f"{100 * value:.1f}" if np.isfinite(value) else "–" for value in values]
        number = Markup('<td class="number">{}</td>')
        lines.append(
            Markup('<tr><th scope="row">{}</th>{}<td><div class="track">{}</div></td>{}</tr>').format(
                name, Markup("").join(map(number.format, cells)), drawn, Markup("").join(map(number.format, shown))
            )
        )
    heads = [head.format("rows")] if plot.counts else []
    heads += [Markup('<th scope="col">{}</th>').format("the tick is a centred box" if ticked else "")]
    heads += [head.format(item.label) for item in series]
    return Markup('<table class="bars"><thead><tr><th scope="col">{}</th>{}</tr></thead>{}</table>').format(
        plot.axis, Markup("").join(heads), Markup("").join(lines)
    )


def _grid(plot: Plot, down: Sequence[tuple[float, str]], top: float) -> Markup:
    rule = Markup('<line class="rule" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
    mark = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    parts = [rule.format(_x(0), _x(1), _y(place / top), _y(place / top)) for place, _ in down]
    parts += [mark.format(_x(0) - 7, _y(place / top) + 4, "end", label) for place, label in down]
    parts += [mark.format(_x(place), _y(0) + 21, "middle", label) for place, label in ticks(plot.span)]
    return Markup("").join(parts)


def _line(points: Sequence[tuple[float, float]], item: Series | Curve) -> Markup:
    return Markup('<polyline class="line {}" points="{}"><title>{}</title></polyline>').format(
        item.style, " ".join(f"{x:.1f},{y:.1f}" for x, y in points), item.label
    )


def _percents(top: float) -> list[tuple[float, str]]:
    step = top / 4
    return [(number * step, f"{number * step:.0%}") for number in range(5)]


def _round_up(value: float) -> float:
    """The next round share above `value` that divides into four round steps."""
    return next((top for top in (0.04, 0.08, 0.12, 0.2, 0.32, 0.4, 0.6, 0.8) if value <= top), 1.0)


def _x(place: float) -> float:
    return LEFT + place * (WIDTH - LEFT - RIGHT)


def _y(place: float) -> float:
    return HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM)
