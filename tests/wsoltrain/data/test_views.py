"""Maps through crop and flip, against torch's own resize."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from wsoltrain.data.views import maps_to_view, normalise


def plain_view(maps: torch.Tensor, window: list[int], size: int) -> torch.Tensor:
    left, top, side, flips = window
    whole = interpolate(maps[None], (side, side), mode="bilinear", align_corners=False)[0]
    cut = whole[:, top : top + size, left : left + size]
    cut = cut.flip(-1) if flips & 1 else cut
    return cut.flip(-2) if flips & 2 else cut


@pytest.mark.parametrize("grid", [(14, 14), (7, 11), (28, 28), (1, 1), (300, 300)])
def test_equals_resize_then_crop_then_flip(grid):
    maps = torch.rand(3, *grid, generator=torch.Generator().manual_seed(0))
    for window in ([0, 0, 224, 0], [0, 0, 256, 1], [32, 5, 256, 2], [3, 32, 256, 3]):
        view = maps_to_view(maps, torch.tensor(window), 224)
        assert view.shape == (3, 224, 224)
        torch.testing.assert_close(view, plain_view(maps, window, 224), rtol=0, atol=3e-5)


def test_a_batch_equals_its_items():
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(4, 2, 14, 14, generator=generator)
    windows = torch.tensor([[0, 0, 64, 0], [8, 3, 64, 1], [1, 8, 64, 0], [5, 5, 64, 1]])
    batch = maps_to_view(maps, windows, 56)
    for number in range(4):
        torch.testing.assert_close(batch[number], maps_to_view(maps[number], windows[number], 56))


def test_padding_of_a_grid_is_not_looked_at():
    inner = torch.rand(2, 9, 14, generator=torch.Generator().manual_seed(2))
    padded = torch.full((2, 14, 14), 99.0)
    padded[:, :9] = inner
    window = torch.tensor([4, 2, 64, 1])
    view = maps_to_view(padded, window, 56, grid_hw=torch.tensor([9, 14]))
    torch.testing.assert_close(view, plain_view(inner, window.tolist(), 56), rtol=0, atol=2e-6)


def test_normalise_centres_and_scales_each_colour():
    rgb = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    for colour in range(3):
        expected = (rgb[:, colour] / 255 - mean[colour]) / std[colour]
        torch.testing.assert_close(normalise(rgb, mean, std)[:, colour], expected, rtol=1e-5, atol=1e-5)
