"""Rows that a report shows: the best, the median and the worst, and some at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Group = Literal["best", "median", "worst", "random", "quarantined"]
RANKED: tuple[Group, ...] = ("best", "median", "worst")


@dataclass(frozen=True)
class Pick:
    """A row of the gallery and the group it was chosen for."""

    row: int
    group: Group


def choose(values: np.ndarray[Any, Any], eligible: np.ndarray[Any, Any], *, n: int, seed: int) -> list[Pick]:
    """Choose up to `n` rows: a quarter each of the best, median and worst by value, the rest at random.

    Parameters
    ----------
    values : float [N]
        One value a row, NaN where a row cannot be ranked. Equal values are ranked by row.
    eligible : int [M]
        Rows that may be shown.
    n : int
        Rows wanted; fewer where fewer are eligible.
    seed : int
        Of the random part, which is drawn from all eligible rows, ranked or not, and does not depend on the values of
        rows outside it.

    Returns
    -------
    list of Pick
        Each row once: best first, then median, worst (worst first) and random in row order.
    """
    ranked = eligible[~np.isnan(values[eligible])]
    ranked = ranked[np.lexsort((ranked, -values[ranked]))]
    quarter = min(n // 4, len(ranked) // 3)
    middle = (len(ranked) - quarter) // 2
    parts = {
        "best": ranked[:quarter],
        "median": ranked[middle : middle + quarter],
        "worst": ranked[len(ranked) - quarter :][::-1],
    }
    picks = [Pick(int(row), group) for group in RANKED for row in parts[group]]
    rest = np.setdiff1d(eligible, [pick.row for pick in picks])
    drawn = np.random.default_rng(seed).permutation(rest)[: n - len(picks)]
    return picks + [Pick(int(row), "random") for row in sorted(drawn)]
