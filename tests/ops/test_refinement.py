"""Maps that follow the image: the guided filter window by window, the CRF's ends, and what weights mean."""

from __future__ import annotations

import numpy as np
import pytest

from wsolpipe.maps.resize import upsample
from wsolpipe.ops import dense_crf
from wsolpipe.ops.refinement import Refinement, crf, guided
from wsolpipe.stages.registry import load_registry

SIDE = 24


@pytest.fixture(scope="module")
def image():
    pixels = np.full((SIDE, SIDE, 3), 60, np.uint8)
    pixels[6:18, 8:20] = (200, 120, 40)
    return (pixels + np.random.default_rng(0).integers(0, 6, pixels.shape)).astype(np.uint8)


@pytest.fixture(scope="module")
def coarse():
    maps = np.zeros((2, 6, 6), np.float32)
    maps[0, 1:5, 2:5] = 200
    maps[1] = 31
    return maps


def plan(**given) -> Refinement:
    return load_registry().params("refine", {"size": SIDE, "w": 0.5, "crf_size": SIDE} | given).plan()


def plain_guided(one, image, radius, eps):
    """He, Sun and Tang (2013), equations 19 to 21, with each window's own sums."""
    guide = image.astype(np.float64) / 255
    height, width = one.shape

    def windows(y, x):
        return slice(max(y - radius, 0), y + radius + 1), slice(max(x - radius, 0), x + radius + 1)

    factors, shifts = np.zeros((height, width, 3)), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            colours, values = guide[windows(y, x)].reshape(-1, 3), one[windows(y, x)].ravel().astype(np.float64)
            spread = np.cov(colours.T, bias=True) + eps * np.eye(3)
            with_value = (colours * values[:, None]).mean(0) - colours.mean(0) * values.mean()
            factors[y, x] = np.linalg.solve(spread, with_value)
            shifts[y, x] = values.mean() - factors[y, x] @ colours.mean(0)
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            out[y, x] = factors[windows(y, x)].reshape(-1, 3).mean(0) @ guide[y, x] + shifts[windows(y, x)].mean()
    return out


def test_the_guided_filter_is_the_published_one_inside_the_border(image, coarse):
    how = plan(by="guided", guided_radius=3, guided_eps=0.01)
    one = upsample(coarse[0], (SIDE, SIDE))
    found, wanted = guided(one, image, how), plain_guided(one, image, 3, 0.01)
    inner = slice(6, -6)  # cv2 reflects the image at its border, the paper cuts windows off
    np.testing.assert_allclose(found[inner, inner], wanted[inner, inner], atol=0.5)


@pytest.mark.parametrize("by", ["guided", "crf"])
def test_a_weight_between_lies_between_and_no_contrast_stays_none(by, image, coarse):
    how = plan(by=by, guided_radius=3)
    before, half, after = (how.refine(coarse, image, w) for w in (0.0, 0.5, 1.0))
    np.testing.assert_array_equal(before, upsample(coarse, (SIDE, SIDE), cubic=True))
    np.testing.assert_allclose(half, (before + after) / 2, atol=1e-2)
    assert np.abs(after[0] - before[0]).max() > 10
    assert np.ptp(after[1]) < 1e-3


def test_the_crf_moves_a_map_to_the_edges_of_the_image(image, coarse):
    how = plan(by="crf", crf_xy=8.0)
    before, after = (how.refine(coarse, image, w)[0] for w in (0.0, 1.0))

    def step(found):
        """How much higher the rectangle's first row is than the row above it."""
        return (found[6, 10:18] - found[5, 10:18]).mean()

    assert step(after) > 1.5 * step(before) > 0


def test_pairs_of_pixels_are_weighed_once_for_all_maps_of_a_row(image, coarse, monkeypatch):
    how, weighed = plan(by="crf"), []
    alone = [how.refine(one[None], image, 1.0)[0] for one in coarse]
    made = dense_crf.gaussian
    monkeypatch.setattr(dense_crf, "gaussian", lambda features: weighed.append(1) or made(features))
    np.testing.assert_array_equal(how.refine(coarse, image, 1.0), np.stack(alone))
    assert len(weighed) == 2  # smoothness and appearance


def test_the_crf_keeps_the_scale_of_the_map(image, coarse):
    one = upsample(coarse[0] / 10 - 4, (SIDE, SIDE))
    found = crf(one[None], image, plan(by="crf"))[0]
    assert one.min() - 1e-4 <= found.min() < found.max() <= one.max() + 1e-4
