"""Colour jitter against its plain formulas."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from wsoltrain.data.views import jitter_colours


@pytest.fixture
def picture():
    return torch.from_numpy(np.random.default_rng(0).integers(30, 200, (3, 12, 16), dtype=np.uint8))


def factors(seed, strengths):
    """The draws of the function, in its order."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(max(0, 1 - s), 1 + s) for s in strengths[:3]], rng.uniform(-strengths[3], strengths[3])


def test_brightness_contrast_and_saturation_are_blends_with_black_grey_and_the_own_grey(picture):
    grey = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    values = picture.float()
    own = (values * grey).sum(0, keepdim=True)
    for place, other in enumerate((torch.zeros(1), own.mean().round(), own)):
        strengths = [0.5 if place == each else 0.0 for each in range(3)] + [0.0]
        (factor, *_), _ = (lambda drawn: (drawn[0][place:], drawn[1]))(factors(3, strengths))
        expected = (other + factor * (values - other)).clamp(0, 255)
        found = jitter_colours(picture, strengths, np.random.default_rng(3)).float()
        assert (found - expected).abs().max() <= 2  # Pillow rounds grey and result


def test_hue_turns_by_the_same_angle_everywhere(picture):
    strengths = [0.0, 0.0, 0.0, 0.2]
    _, turn = factors(5, strengths)
    found = jitter_colours(picture, strengths, np.random.default_rng(5))
    pixels = picture.permute(1, 2, 0).reshape(-1, 3).numpy() / 255
    vivid = [place for place, pixel in enumerate(pixels) if colorsys.rgb_to_hsv(*pixel)[1] > 0.4]
    after = found.permute(1, 2, 0).reshape(-1, 3).numpy() / 255
    for place in vivid:
        before, now = (colorsys.rgb_to_hsv(*side[place])[0] for side in (pixels, after))
        assert abs((now - before - turn + 0.5) % 1 - 0.5) < 0.03


def test_no_strength_changes_nothing_and_a_seed_gives_one_result(picture):
    assert torch.equal(jitter_colours(picture, [0, 0, 0, 0], np.random.default_rng(0)), picture)
    strengths = [0.5, 0.5, 0.5, 0.05]
    first, again = (jitter_colours(picture, strengths, np.random.default_rng(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, jitter_colours(picture, strengths, np.random.default_rng(2)))
