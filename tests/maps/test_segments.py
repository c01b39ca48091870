"""Maps mixed with the means of their segments, against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wsolpipe.contract.errors import DataError
from wsolpipe.maps.levels import quantise
from wsolpipe.maps.resize import upsample
from wsolpipe.maps.segments import mix_segments, to_levels
from wsolpipe.metrics.scaling import resize_maps


def plain(maps, labels, w):
    """The formula, in float64, one segment at a time."""
    wide = resize_maps(maps.astype(np.float64), labels.shape)
    if len(np.unique(labels)) == 1:
        return wide
    out = wide.copy()
    for name in np.unique(labels):
        inside = labels == name
        for one, made in zip(wide, out, strict=True):
            made[inside] = (1 - w) * one[inside] + w * one[inside].mean()
    return out


@settings(max_examples=60, deadline=None)
@given(
    maps=arrays.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))),
    labels=arrays.arrays(np.uint16, st.tuples(st.integers(1, 13), st.integers(1, 13)), elements=st.integers(0, 9)),
    w=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)
def test_every_pixel_is_mixed_with_the_mean_of_its_segment(maps, labels, w):
    np.testing.assert_allclose(mix_segments(maps.astype(np.float32), labels, w), plain(maps, labels, w), atol=1e-3)


def test_labels_may_have_gaps_and_be_many():
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([0, 7, 40000, 65535]), (40, 30)).astype(np.uint16)
    maps = rng.random((2, 14, 14)).astype(np.float32)
    np.testing.assert_allclose(mix_segments(maps, labels, 0.6), plain(maps, labels, 0.6), atol=1e-5)


def test_one_segment_alone_leaves_a_map_and_no_contrast_stays_none():
    maps = np.random.default_rng(0).random((1, 7, 7)).astype(np.float32)
    same = np.full((21, 21), 3, np.uint16)
    np.testing.assert_array_equal(mix_segments(maps, same, 1.0), upsample(maps, (21, 21), cubic=True))
    zeros = mix_segments(np.zeros((1, 7, 7)), np.arange(441).reshape(21, 21) // 50, 0.5)
    assert not zeros.any()
    levels, limits = to_levels(zeros, np.float32([[2, 5]]))
    assert not levels.any()
    assert limits.tolist() == [[2, 2]]


def test_levels_are_those_of_the_stored_values():
    rng = np.random.default_rng(1)
    on_levels, limits = rng.random((3, 9, 11)).astype(np.float32) * 255, np.float32([[-1, 3], [0, 0], [0, 1e-3]])
    levels, found = to_levels(on_levels, limits)
    true = limits[:, :1, None] + on_levels / 255 * (limits[:, 1:, None] - limits[:, :1, None])
    wanted, ends = quantise(true[[0, 2]])
    assert np.abs(levels[[0, 2]].astype(int) - wanted).max() <= 1  # rounded in float32, not in float64
    np.testing.assert_allclose(found[[0, 2]], ends, rtol=1e-5)
    assert found[1].tolist() == [0, 0]


@pytest.mark.parametrize("labels", [np.zeros((2, 2, 2), np.uint16), np.full((3, 3), -1), np.zeros((0, 3), np.uint16)])
def test_labels_that_are_none_are_refused(labels):
    with pytest.raises(DataError, match="whole numbers from 0 to 65535"):
        mix_segments(np.zeros((1, 3, 3), np.float32), labels, 0.5)


@pytest.mark.parametrize(("size", "wanted"), [((14, 14), (224, 224)), ((5, 9), (23, 4)), ((1, 3), (6, 3))])
def test_maps_are_stretched_as_the_evaluator_stretches_them(size, wanted):
    maps = np.random.default_rng(2).normal(0, 50, (2, 3, *size)).astype(np.float32)
    np.testing.assert_allclose(upsample(maps, wanted, cubic=True), resize_maps(maps, wanted), atol=1e-4)
    constant = upsample(np.full((1, *size), np.float32(0.1)), wanted, cubic=True)
    assert np.ptp(constant) == 0  # not the rounding of weights, which min-max would make a map of


def test_maps_without_a_pixel_are_refused():
    with pytest.raises(DataError, match="at least one pixel"):
        upsample(np.zeros((1, 0, 3)), (4, 4), cubic=True)
