"""Plateaus of curves, against a plain search."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wsolpipe.metrics.confidence import describe_plateau, middle, plateau


def longest_run(values, tolerance):
    """The same by trying every run."""
    good = [value >= max(values) - tolerance for value in values]
    runs = [
        (first, last)
        for first in range(len(values))
        for last in range(first, len(values))
        if all(good[first : last + 1])
    ]
    return max(runs, key=lambda run: (run[1] - run[0], -run[0]))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=15), st.sampled_from([0.0, 1.0]))
def test_plateau_is_the_first_longest_run_of_good_thresholds(values, tolerance):
    assert plateau(values, tolerance=tolerance) == longest_run(values, tolerance)


def test_the_middle_is_as_far_from_one_edge_as_from_the_other():
    assert middle([0, 0, 7, 7, 7, 7, 7, 0]) == 4
    assert middle([7, 7, 7, 0]) == 1
    assert middle([7, 0, 7, 7, 7, 7]) == 3
    assert middle([1]) == 0


def test_only_wide_plateaus_are_reported():
    narrow, wide = np.zeros(100), np.zeros(100)
    narrow[10:20], wide[10:40] = 5, 5
    assert describe_plateau(narrow) is None
    assert "0.100 to 0.390" in describe_plateau(wide)
