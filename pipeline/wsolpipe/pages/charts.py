"""Charts as inline SVG: coloured by the page's CSS variables, without a library.

A series is (CSS class, label, values); its colour is the CSS variable of that name in the page's style.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, Any]

WIDTH, HEIGHT = 560.0, 264.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 16.0, 14.0, 52.0


@dataclass(frozen=True)
class Series:
    """One set of values in a chart.

    Attributes
    ----------
    style : str
        CSS class; colours come from the page.
    label : str
        For the legend.
    values : float [N]
        In 0..1, without NaN.
    """

    style: str
    label: str
    values: Array


def histogram(series: Sequence[Series], *, bins: int, title: str, axis: str) -> Markup:
    """Share of rows in each bin of 0..1: the first series as filled columns, the others as outlined steps."""
    counts = [
        np.histogram(item.values.clip(0, 1), bins=bins, range=(0, 1))[0] / max(len(item.values), 1) for item in series
    ]
    top = _round_up(max(float(part.max(initial=0)) for part in counts))
    shapes = [_grid([(tick, f"{tick:.1f}") for tick in np.linspace(0, 1, 6)], _percents(top), top)]
    edges = np.linspace(0, 1, bins + 1)
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
                    f"{item.label}, {near:.2f} to {far:.2f}: {share:.1%} of rows",
                )
                for near, far, share in zip(edges[:-1], edges[1:], part, strict=True)
                if share
            ]
        else:
            points = [(_x(0), _y(0))]
            for near, far, share in zip(edges[:-1], edges[1:], part, strict=True):
                points += [(_x(near), _y(share / top)), (_x(far), _y(share / top))]
            shapes.append(_line([*points, (_x(1), _y(0))], item.style))
    return _figure(shapes, title=title, axis=axis)


def success(series: Sequence[Series], *, title: str, axis: str) -> Markup:
    """Share of rows whose value reaches each level of 0..1."""
    shapes = [_grid([(tick, f"{tick:.1f}") for tick in np.linspace(0, 1, 6)], _percents(1.0), 1.0)]
    levels = np.linspace(0, 1, 101)
    for item in reversed(series):
        ordered = np.sort(item.values)
        shares = 1 - np.searchsorted(ordered, levels, side="left") / max(len(ordered), 1)
        shapes.append(_line([(_x(level), _y(share)) for level, share in zip(levels, shares, strict=True)], item.style))
    return _figure(shapes, title=title, axis=axis)


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
        Heading, and name of the horizontal axis, which goes from 0 to 1.
    series : sequence of Series or Curve
    kind : str
        ``histogram`` (rows by value), ``success`` (share of rows that reach a value) or ``lines``.
    span : int
        Of ``lines``, what 1 on the horizontal axis stands for, such as the last epoch.
    """

    title: str
    axis: str
    series: Sequence[Series | Curve]
    kind: str = "lines"
    span: int = 1


def ticks(span: int) -> list[tuple[float, str]]:
    """Places in 0..1 of an axis and what is written there: five tenths for a span of 1, else whole numbers."""
    if span == 1:
        return [(tick, f"{tick:.1f}") for tick in np.linspace(0, 1, 6).tolist()]
    step = next(each for ten in itertools.count() for each in (10**ten, 2 * 10**ten, 5 * 10**ten) if 6 * each >= span)
    return [(number / span, str(number)) for number in range(0, span + 1, step)]


def lines(curves: Sequence[Curve], *, title: str, axis: str, span: int = 1) -> Markup:
    """Lines over 0..1 (labelled 0..`span`), as shares; later ones lie below earlier ones."""
    shapes = [_grid(ticks(span), _percents(1.0), 1.0)]
    for item in reversed(curves):
        known = np.isfinite(item.x) & np.isfinite(item.y)
        points = zip(item.x[known].tolist(), item.y[known].tolist(), strict=True)
        shapes.append(_line([(_x(x), _y(y)) for x, y in points], item.style))
    return _figure(shapes, title=title, axis=axis)


def legend(series: Sequence[Series | Curve]) -> Markup:
    """Names of the series with their colours, as a list."""
    items = [Markup('<li class="{}">{}</li>').format(item.style, item.label) for item in series]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def _figure(shapes: Sequence[Markup], *, title: str, axis: str) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}'
        '<text class="axis" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text></svg>'
    ).format(WIDTH, HEIGHT, title, Markup("").join(shapes), (_x(0) + _x(1)) / 2, HEIGHT - 6, axis)


def _grid(across: Sequence[tuple[float, str]], down: Sequence[tuple[float, str]], top: float) -> Markup:
    rule = Markup('<line class="rule" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
    mark = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    parts = [rule.format(_x(0), _x(1), _y(place / top), _y(place / top)) for place, _ in down]
    parts += [mark.format(_x(0) - 7, _y(place / top) + 4, "end", label) for place, label in down]
    parts += [mark.format(_x(place), _y(0) + 21, "middle", label) for place, label in across]
    return Markup("").join(parts)


def _line(points: Sequence[tuple[float, float]], style: str) -> Markup:
    return Markup('<polyline class="line {}" points="{}"/>').format(
        style, " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
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
