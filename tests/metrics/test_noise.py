"""Noise studies and confidence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsolpipe import metrics
from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.metrics import confidence, noise

BOXES = [[20.0, 30.0, 60.0, 90.0], [0.0, 0.0, 5.0, 5.0]]


def test_ten_levels_and_losses():
    assert len(noise.LEVELS) == 10
    assert (noise.LEVELS[0], noise.LEVELS[-1]) == (0.05, 0.5)
    assert noise.LOSSES == (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def test_same_seed_and_row_give_the_same_boxes_whatever_else_is_drawn():
    first = noise.noisy_boxes(BOXES, (100, 120), 0.3, seed=1, row=7)
    noise.noisy_boxes(BOXES, (100, 120), 0.3, seed=1, row=8)
    np.testing.assert_array_equal(first, noise.noisy_boxes(BOXES, (100, 120), 0.3, seed=1, row=7))
    assert not np.array_equal(first, noise.noisy_boxes(BOXES, (100, 120), 0.3, seed=2, row=7))
    assert not np.array_equal(first, noise.noisy_boxes(BOXES, (100, 120), 0.3, seed=1, row=8))


def test_no_noise_changes_nothing():
    np.testing.assert_allclose(noise.noisy_boxes(BOXES, (100, 120), 0.0, seed=0, row=0), BOXES)
    assert noise.noisy_boxes([], (100, 120), 0.3, seed=0, row=0).shape == (0, 4)


@given(st.integers(0, 10_000), st.sampled_from(noise.LEVELS), st.integers(1, 90), st.integers(1, 90))
def test_boxes_stay_in_the_image_and_keep_a_pixel(row, level, width, height):
    box = [[0.9 * width - min(width, 0.5), 0, 0.9 * width, height]]
    x0, y0, x1, y1 = noise.noisy_boxes(box, (width, height), level, seed=3, row=row)[0]
    assert -1e-9 <= x0 < x1 <= width + 1e-9
    assert -1e-9 <= y0 < y1 <= height + 1e-9
    assert x1 - x0 >= 1 - 1e-9
    assert y1 - y0 >= 1 - 1e-9


def test_more_noise_gives_lower_iou():
    means = []
    for level in noise.LEVELS:
        pairs = [noise.noisy_boxes([[300, 300, 400, 500]], (1000, 1000), level, seed=0, row=row) for row in range(400)]
        means.append(np.mean([metrics.best_iou(box, [[300, 300, 400, 500]]) for box in pairs]))
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.88 > 0.6 > means[-1]


def test_rules_stay_within_their_ranges():
    boxes = np.concatenate(
        [noise.noisy_boxes([[400, 400, 500, 500]], (1000, 1000), 0.2, seed=5, row=row) for row in range(2000)]
    )
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = np.sqrt(sides.prod(axis=1)) / 100  # the aspect rule keeps the area, so this is the scale
    assert 0.8 - 1e-9 <= areas.min() < 0.81
    assert 1.19 < areas.max() <= 1.2 + 1e-9
    reshaped = np.abs(sides[:, 0] / sides[:, 1] - 1) > 1e-9
    assert reshaped.mean() == pytest.approx(0.2, abs=0.03)
    ratio = sides[:, 0] / sides[:, 1]
    assert 1 / 1.2 - 1e-9 <= ratio.min() < 0.87
    assert 1.15 < ratio.max() <= 1.2 + 1e-9


@pytest.mark.parametrize("loss", noise.LOSSES)
def test_masks_lose_exactly_the_wanted_area_from_the_outside(loss):
    mask = np.zeros((60, 60), bool)
    mask[10:50, 15:45] = True
    mask[20:30, 20:30] = False
    left = noise.eroded_mask(mask, loss, seed=0, row=1)
    assert left.sum() == mask.sum() - round(loss * mask.sum())
    assert not (left & ~mask).any()
    np.testing.assert_array_equal(left, noise.eroded_mask(mask, loss, seed=0, row=1))
    other = noise.eroded_mask(mask, loss, seed=1, row=1)
    assert other.sum() == left.sum()
    if loss == 0.05:  # a part of the first ring: the seed decides which
        assert not np.array_equal(left, other)


def test_small_masks_keep_a_pixel_and_empty_ones_stay_empty():
    one = np.zeros((5, 5), bool)
    one[2, 2] = True
    assert noise.eroded_mask(one, 0.9, seed=0, row=0).sum() == 1
    assert noise.eroded_mask(np.zeros((5, 5)), 0.9, seed=0, row=0).sum() == 0
    for wrong in (-0.1, 1.1):
        with pytest.raises(ConfigError, match="share in 0..1"):
            noise.eroded_mask(one, wrong, seed=0, row=0)
        with pytest.raises(ConfigError, match="share in 0..1"):
            noise.noisy_boxes(BOXES, (9, 9), wrong, seed=0, row=0)


def test_interval_of_a_mean_is_the_textbooks():
    values = np.random.default_rng(0).normal(0.6, 0.2, 2000)
    found = confidence.interval(values, replicates=2000)
    error = values.std() / np.sqrt(2000)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=error / 4)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=error / 4)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        found = confidence.interval(rng.random(80) < 0.7, replicates=300, level=0.9, seed=trial)
        hits += found.low <= 0.7 <= found.high
    assert 0.82 <= hits / 200 <= 0.96


def test_curves_take_their_maximum_anew_in_each_replicate():
    # Two thresholds, each right on half of the rows: the maximum is never below one half.
    right = np.zeros((100, 2))
    right[:50, 0] = right[50:, 1] = 1
    found = confidence.interval(right)
    assert found.value == 0.5
    assert found.low >= 0.5
    fixed = confidence.interval(right, figure=confidence.at_threshold(0.0))
    assert fixed.low < 0.5 < fixed.high


def test_interval_of_pxap_is_of_pooled_histograms():
    rng = np.random.default_rng(2)
    masks = rng.random((30, 12, 12)) < 0.3
    scores = metrics.minmax(masks * 0.4 + rng.random(masks.shape))
    histograms = np.stack([metrics.pixel_histograms(*pair, thresholds=50) for pair in zip(scores, masks, strict=True)])
    found = confidence.interval(histograms, replicates=300)
    assert found.value == pytest.approx(metrics.pxap(scores, masks, thresholds=50))
    assert found.low < found.value < found.high


def test_paired_test_sees_a_small_steady_gain_that_intervals_alone_do_not():
    rng = np.random.default_rng(3)
    hard = rng.random(1000)
    first, second = hard < 0.62, hard < 0.60
    found = confidence.compare(first, second)
    assert found.p < 0.01
    assert found.difference.low > 0
    apart = [confidence.interval(run) for run in (first, second)]
    assert apart[1].high > apart[0].low


def test_paired_test_is_rarely_sure_where_there_is_nothing():
    rng = np.random.default_rng(4)
    sure = sum(
        confidence.compare(rng.random(60) < 0.5, rng.random(60) < 0.5, replicates=200, seed=trial).p < 0.05
        for trial in range(100)
    )
    assert sure <= 12
    assert confidence.compare(np.ones(60), np.zeros(60), replicates=100).p == 1 / 101  # the observed split counts
    same = rng.random((40, 5)) < 0.5
    assert confidence.compare(same, same, replicates=100).p == 1


def test_unlike_rows_are_refused():
    with pytest.raises(DataError, match="same rows"):
        confidence.compare([1, 0], [1, 0, 1])
    with pytest.raises(DataError, match="at least one row"):
        confidence.interval([])
