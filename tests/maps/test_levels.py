"""Levels: what is stored comes back within half a step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsolpipe.contract.errors import DataError
from wsolpipe.maps.levels import dequantise, minmax, quantise, to_uint8

finite = st.floats(-1e4, 1e4, width=32)
batches = arrays(np.float32, st.tuples(*[st.integers(1, 4)] * 3), elements=finite)


@given(batches)
def test_stored_map_is_within_half_a_quantisation_step(maps):
    levels, limits = quantise(maps)
    assert levels.dtype == np.uint8
    assert limits.dtype == np.float32
    assert limits.shape == (*maps.shape[:-2], 2)
    back = dequantise(levels, limits)
    half = (limits[:, 1].astype(np.float64) - limits[:, 0])[:, None, None] / 510
    rounding = np.spacing(np.abs(maps).max())
    assert (np.abs(back.astype(np.float64) - maps) <= half * (1 + 1e-9) + rounding).all()


def test_lowest_is_level_0_and_highest_255_of_each_map_alone():
    maps = np.stack([np.linspace(-3, 5, 12), np.linspace(0, 1e-6, 12)]).reshape(2, 3, 4).astype(np.float32)
    levels, limits = quantise(maps)
    assert levels.min(axis=(1, 2)).tolist() == [0, 0]
    assert levels.max(axis=(1, 2)).tolist() == [255, 255]
    assert limits[0].tolist() == [-3, 5]


def test_constant_map_comes_back_exactly_and_is_zero_after_minmax():
    maps = np.full((2, 3, 3), 0.7, np.float32)
    levels, limits = quantise(maps)
    assert not levels.any()
    assert np.array_equal(dequantise(levels, limits), maps)
    assert not minmax(maps).any()


def test_quantise_rounds_and_to_uint8_truncates():
    maps = np.array([[0.0, 0.999 / 255 * 7, 1.0]], np.float32)
    assert quantise(maps)[0].tolist() == [[0, 7, 255]]
    assert to_uint8(maps).tolist() == [[0, 6, 255]]


@given(batches)
def test_minmax_spans_zero_to_one(maps):
    out = minmax(maps)
    assert out.dtype == np.float32
    flat = maps.reshape(len(maps), -1)
    for before, after in zip(flat, out.reshape(len(maps), -1), strict=True):
        assert after.min() == 0
        assert after.max() == (1 if before.max() > before.min() else 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_without_a_level_are_refused(bad):
    maps = np.zeros((2, 2, 2), np.float32)
    maps[1, 0, 0] = bad
    for function in (minmax, quantise):
        with pytest.raises(DataError, match="1 of 2 maps"):
            function(maps)
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        to_uint8(maps)


def test_levels_outside_the_unit_interval_are_refused_but_rounding_is_not():
    with pytest.raises(DataError, match="see minmax"):
        to_uint8(np.array([0.0, 1.1]))
    assert to_uint8(np.array([-1e-6, 1 + 1e-6])).tolist() == [0, 255]
