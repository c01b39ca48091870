"""Uncertainty of figures: intervals, paired tests, and how much a curve can tell, since tables differ by tenths.

Rows (images) are the unit. A figure is a function of a sum over rows: MaxBoxAcc is the maximum over thresholds of
summed correct boxes, PxAP a function of summed histograms. Each bootstrap replicate draws rows with replacement and
computes the figure anew, *the maximum over thresholds included* (Efron and Tibshirani, "An introduction to the
bootstrap", 1993, percentile interval). The paired test swaps the two runs' results of each row by a fair coin
(Fisher's permutation test): both runs must have been scored on the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsolpipe.contract.errors import DataError
from wsolpipe.metrics.pixels import nearest_threshold, pxap_of

Floats = NDArray[np.float64]
Figure = Callable[[Floats, int], Floats]
Values = dict[str, tuple[NDArray[Any], NDArray[Any]]]


_AT_ONCE = 100


@dataclass(frozen=True)
class Interval:
    """A figure and its interval.

    Parameters
    ----------
    value, low, high : float
    level : float
        Coverage that the interval aims at.
    rows, replicates : int
    """

    value: float
    low: float
    high: float
    level: float
    rows: int
    replicates: int


@dataclass(frozen=True)
class Comparison:
    """The difference of two runs (first minus second) with its interval, and the two-sided p of the paired test."""

    difference: Interval
    p: float
    permutations: int

    def plain(self) -> dict[str, Any]:
        """Its numbers by name: ``difference``, ``low``, ``high``, ``level`` and ``p``."""
        part = self.difference
        return {"difference": part.value, "low": part.low, "high": part.high, "level": part.level, "p": self.p}


def mean_figure(sums: Floats, rows: int) -> Floats:
    """Mean of one value for each row (sums [R, 1]): IoU, accuracy, share of correct boxes at a given threshold."""
    return sums[:, 0] / rows


def best_figure(sums: Floats, rows: int) -> Floats:
    """Maximum over thresholds of a curve's mean (sums [R, T]): MaxBoxAcc, best IoU."""
    return cast("Floats", sums.max(axis=1)) / rows


def pxap_figure(sums: Floats, rows: int) -> Floats:
    """PxAP in per cent of pooled histograms (sums [R, 2 * bins], background before foreground)."""
    return pxap_of(sums.reshape(len(sums), 2, -1))


def at_threshold(tau: float) -> Figure:
    """Return the figure that reads a curve's mean at one threshold chosen beforehand."""

    def figure(sums: Floats, rows: int) -> Floats:
        return sums[:, nearest_threshold(tau, sums.shape[1])] / rows

    return figure


def interval(
    values: ArrayLike, *, figure: Figure | None = None, replicates: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return a figure with its bootstrap interval.

    Parameters
    ----------
    values : [N], [N, T] or [N, ...]
        What each row adds to the sum: an IoU, correctness at each threshold, a histogram.
    figure : function of sums [R, T] and the number of rows, to [R]
        Default ``mean_figure`` for [N], ``best_figure`` for [N, T], ``pxap_figure`` for [N, 2, bins].
    replicates : int
    level : float
    seed : int

    Raises
    ------
    DataError
        Without rows.
    """
    rows, chosen = _rows_of(values, figure)
    count = len(rows)
    draws = np.concatenate([chosen(weights @ rows, count) for weights in _resamples(count, replicates, seed)])
    return _interval_of(float(chosen(rows.sum(axis=0, keepdims=True), count)[0]), draws, level, count)


def compare(
    first: ArrayLike,
    second: ArrayLike,
    *,
    figure: Figure | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two runs on the same rows.

    Parameters
    ----------
    first, second : [N, ...]
        As ``interval`` wants, row by row the same images.

    Returns
    -------
    Comparison
        ``p`` counts the observed split among the permutations, so it is never zero.

    Raises
    ------
    DataError
        If the shapes differ or there are no rows.
    """
    if np.shape(first) != np.shape(second):
        msg = f"a paired test needs the same rows twice, not {list(np.shape(first))} and {list(np.shape(second))}"
        raise DataError(msg)
    one, chosen = _rows_of(first, figure)
    two, _ = _rows_of(second, figure)
    count = len(one)

    def difference(a: Floats, b: Floats) -> Floats:
        return chosen(a, count) - chosen(b, count)

    total_one, total_two = one.sum(axis=0, keepdims=True), two.sum(axis=0, keepdims=True)
    observed = float(difference(total_one, total_two)[0])
    draws = np.concatenate([difference(w @ one, w @ two) for w in _resamples(count, replicates, seed)])
    rng = np.random.default_rng((seed, 1))
    gap, extreme = two - one, 0
    for start in range(0, replicates, _AT_ONCE):
        swaps = rng.integers(0, 2, (min(_AT_ONCE, replicates - start), count)).astype(np.float64)
        moved = swaps @ gap
        # Sums of swapped rows differ from the observed ones in the last bits only: those are ties.
        extreme += int((np.abs(difference(total_one + moved, total_two - moved)) >= abs(observed) - 1e-12).sum())
    return Comparison(_interval_of(observed, draws, level, count), (extreme + 1) / (replicates + 1), replicates)


def intervals_of(values: Values) -> dict[str, Any]:
    """Bootstrap interval of each figure; of the best over thresholds where none was chosen beforehand."""
    return {name: asdict(interval(each)) for name, (_, each) in values.items()}


def paired_tests(first: Values, second: Values) -> dict[str, Any]:
    """Paired test of each figure that both results have, on the rows that both have."""
    tests: dict[str, Any] = {}
    for figure, (rows, values) in first.items():
        if figure not in second:
            continue
        common, mine, its = np.intersect1d(rows, second[figure][0], return_indices=True)
        tests[figure] = {**compare(values[mine], second[figure][1][its]).plain(), "rows": len(common)}
    return tests


def _rows_of(values: ArrayLike, figure: Figure | None) -> tuple[Floats, Figure]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < 1 or not len(array):
        msg = "an interval needs at least one row"
        raise DataError(msg)
    default = {1: mean_figure, 2: best_figure}.get(array.ndim, pxap_figure)
    return array.reshape(len(array), -1), figure or default


def _resamples(rows: int, replicates: int, seed: int) -> Iterator[Floats]:
    """Yield how often each row is drawn, [R, rows] in parts."""
    rng = np.random.default_rng((seed, 0))
    even = np.full(rows, 1 / rows)
    for start in range(0, replicates, _AT_ONCE):
        yield rng.multinomial(rows, even, min(_AT_ONCE, replicates - start)).astype(np.float64)


def _interval_of(value: float, draws: Floats, level: float, rows: int) -> Interval:
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, rows, len(draws))


#: Share of all thresholds from which on a plateau is reported as flat.
WIDE = 0.25
#: Per cent from which on a score is reported as saturated.
FULL = 99.0


def plateau(curve: ArrayLike, *, tolerance: float = 0.0) -> tuple[int, int]:
    """Return the longest run of thresholds within `tolerance` of the best score, as its first and last place.

    Of runs of equal length the first counts.

    Parameters
    ----------
    curve : float [T]
        Score at each threshold.
    tolerance : float
        In units of the curve; 0 for the best score alone.

    Examples
    --------
    >>> plateau([1, 3, 3, 3, 2, 3])
    (1, 3)
    """
    values = np.asarray(curve, dtype=np.float64)
    good = values >= values.max() - tolerance
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(np.int8)))
    starts, stops = edges[::2], edges[1::2]
    longest = int((stops - starts).argmax())
    return int(starts[longest]), int(stops[longest]) - 1


def middle(curve: ArrayLike) -> int:
    """Return the place in the middle of the best score's longest plateau, the lower one of two."""
    first, last = plateau(curve)
    return (first + last) // 2


def describe_plateau(curve: ArrayLike) -> str | None:
    """Return a sentence about a plateau that covers at least `WIDE` of all thresholds, None for a narrower one."""
    values = np.asarray(curve, dtype=np.float64)
    first, last = plateau(values)
    if last - first + 1 < WIDE * len(values):
        return None
    low, high = first / len(values), last / len(values)
    return f"flat curve: every threshold from {low:.3f} to {high:.3f} scores the same; its middle is taken"
