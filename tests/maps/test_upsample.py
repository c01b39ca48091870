"""Stretching without torch equals torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from wsolpipe.contract.errors import DataError
from wsolpipe.maps.resize import upsample

sides = st.integers(1, 40)


@settings(deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 2**31))
def test_equals_torch_at_any_size(h, w, height, width, seed):
    maps = np.random.default_rng(seed).random((2, 3, h, w), dtype=np.float32)
    want = interpolate(torch.from_numpy(maps), (height, width), mode="bilinear", align_corners=False).numpy()
    got = upsample(maps, (height, width))
    assert got.dtype == np.float32
    assert np.abs(got - want).max() <= 1e-5


@pytest.mark.parametrize("grid", [14, 28, 37])
def test_equals_torch_from_patch_grids_to_images(grid):
    maps = np.random.default_rng(grid).random((5, grid, grid), dtype=np.float32)
    want = interpolate(torch.from_numpy(maps)[None], (224, 256), mode="bilinear", align_corners=False)[0].numpy()
    assert np.abs(upsample(maps, (224, 256)) - want).max() <= 1e-5


def test_a_peak_stays_at_its_place():
    maps = np.zeros((14, 14), np.float32)
    maps[3, 9] = 1
    big = upsample(maps, (224, 224))
    y, x = np.unravel_index(big.argmax(), big.shape)
    assert abs(y + 0.5 - 3.5 * 16) <= 1
    assert abs(x + 0.5 - 9.5 * 16) <= 1


def test_same_size_changes_nothing_and_single_maps_keep_their_axes():
    maps = np.random.default_rng(0).random((6, 7), dtype=np.float32)
    assert np.array_equal(upsample(maps, (6, 7)), maps)
    with pytest.raises(DataError, match="at least one pixel"):
        upsample(maps, (0, 7))
