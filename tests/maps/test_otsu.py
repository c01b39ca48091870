"""Otsu's threshold against two libraries and against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.filters import threshold_otsu

from wsolpipe.contract.errors import DataError
from wsolpipe.maps.foreground import otsu_threshold, otsu_thresholds


def variances(values):
    """Between-class variance of every split, exact; None where one side is empty."""
    counts = np.bincount(values.ravel(), minlength=256).tolist()
    pixels, total = sum(counts), sum(level * count for level, count in enumerate(counts))
    below = part = 0
    out = []
    for level, count in enumerate(counts):
        below, part = below + count, part + level * count
        rest = pixels - below
        out.append(Fraction((pixels * part - below * total) ** 2, below * rest) if below and rest else None)
    return out


def random_maps(count, seed):
    rng = np.random.default_rng(seed)
    for number in range(count):
        shape = tuple(rng.integers(2, 40, 2))
        kind = number % 4
        if kind == 0:
            values = rng.integers(0, 256, shape)
        elif kind == 1:  # few levels: long empty runs and ties
            values = rng.choice(rng.integers(0, 256, rng.integers(2, 6)), shape)
        elif kind == 2:  # two bells
            values = np.where(rng.random(shape) < rng.random(), rng.normal(60, 20, shape), rng.normal(190, 25, shape))
        else:  # skewed, as attention maps are
            values = 255 * rng.random(shape) ** rng.uniform(1, 6)
        yield np.clip(values, 0, 255).astype(np.uint8)


def cv2_mask(values):
    return cv2.threshold(values, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1] > 0


def test_maximises_exact_variance_and_takes_the_lowest_level_of_a_tie():
    for values in random_maps(400, seed=1):
        if values.min() == values.max():
            continue
        exact = variances(values)
        best = max(value for value in exact if value is not None)
        assert otsu_threshold(values) == exact.index(best)


def test_of_two_equally_good_levels_the_lower_one_wins():
    values = np.repeat(np.array([0, 100, 200], np.uint8), [4, 2, 4])
    exact = variances(values)
    assert exact[0] == exact[100] == max(value for value in exact if value is not None)
    assert otsu_threshold(values) == 0


def test_equals_skimage_and_cv2_on_thousands_of_maps():
    ties = 0
    for values in random_maps(4000, seed=2):
        if values.min() == values.max():
            continue
        ours = otsu_threshold(values)
        reference, mask = int(threshold_otsu(values)), cv2_mask(values)
        if ours == reference and np.array_equal(values > ours, mask):
            continue
        # Only an exact tie between two different splits may be decided otherwise by rounding in the other library.
        exact = variances(values)
        assert exact[ours] == exact[reference] == exact[int(values[~mask].max())]
        ties += 1
    assert ties < 40


def test_equals_skimage_and_cv2_on_real_photographs(shared):
    paths = sorted((shared / "data/ecssd_masks").rglob("*.jpg"))[:60]
    assert paths
    for path in paths:
        with Image.open(path) as image:
            values = np.asarray(image.convert("L"))
        assert otsu_threshold(values) == int(threshold_otsu(values))
        assert np.array_equal(values > otsu_threshold(values), cv2_mask(values))


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_constant_map_has_nothing_above_its_threshold(level):
    values = np.full((7, 5), level, np.uint8)
    assert otsu_threshold(values) == level == threshold_otsu(values)


def test_batch_equals_single_maps():
    batch = np.random.default_rng(3).integers(0, 256, (9, 3, 14, 14), dtype=np.uint8)
    singles = [otsu_threshold(values) for values in batch]
    assert otsu_thresholds(batch).tolist() == singles
    assert otsu_thresholds(batch[:, :, ::2, ::-1]).tolist() == [otsu_threshold(v[:, ::2, ::-1]) for v in batch]


def test_large_images_do_not_overflow():
    values = np.repeat(np.array([10, 200, 255], np.uint8), 30_000_000)
    assert otsu_threshold(values) == 10


def test_real_values_are_refused_and_empty_maps_have_a_threshold():
    with pytest.raises(DataError, match="uint8"):
        otsu_threshold(np.zeros((3, 3), np.float32))
    assert otsu_thresholds(np.zeros((0, 4, 4), np.uint8)).shape == (0,)
    assert otsu_thresholds(np.zeros((2, 0, 4), np.uint8)).tolist() == [0, 0]
