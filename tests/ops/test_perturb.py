"""Compositing and blurring against the plainest loops that say the same."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsolpipe.ops.perturb import blur, blur_matrix, cover_pixels, keep_boxes, normal_density, scale_blur


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_composite_equals_a_loop_over_boxes_exactly(dtype, layout):
    rng = np.random.default_rng(3)
    images = torch.from_numpy(rng.integers(0, 256, (3, 3, 40, 56))).to(dtype).contiguous(memory_format=layout)
    blurred = torch.from_numpy(rng.integers(0, 256, (3, 3, 40, 56))).to(dtype).contiguous(memory_format=layout)
    index = torch.tensor([0, 2, 2, 1, 0])
    boxes = torch.tensor([[0, 0, 56, 40], [5, 7, 6, 8], [0, 0, 1, 40], [55, 39, 56, 40], [10, 10, 10, 30]])
    crops = keep_boxes(images, blurred, index, boxes)
    for crop, number, (x0, y0, x1, y1) in zip(crops, index, boxes.tolist(), strict=True):
        expected = blurred[number].clone()
        expected[:, y0:y1, x0:x1] = images[number][:, y0:y1, x0:x1]
        assert torch.equal(crop, expected)
    assert crops.dtype == dtype
    assert crops.is_contiguous(memory_format=layout)


@given(
    size=st.integers(1, 30),
    half=st.integers(0, 40),
    sigma=st.floats(0.3, 30),
)
@settings(max_examples=60, deadline=None)
def test_blur_matrix_is_a_mirrored_convolution(size, half, sigma):
    line = np.random.default_rng(size).random(size)
    taps = np.exp(-0.5 * ((np.arange(2 * half + 1) - half) / sigma) ** 2)
    padded = np.pad(line, half, mode="reflect") if size > 1 else np.repeat(line, 2 * half + 1)
    expected = np.convolve(padded, taps / taps.sum(), mode="valid")
    found = blur_matrix(size, 2 * half + 1, sigma).double().numpy() @ line
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_blur_equals_opencv_at_the_published_setting():
    image = np.random.default_rng(0).random((224, 224, 3)).astype(np.float32)
    matrix = blur_matrix(224, 65, 20.0)
    found = blur(torch.from_numpy(image).permute(2, 0, 1)[None], matrix, matrix)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, cv2.GaussianBlur(image, (65, 65), 20.0), atol=2e-6)


def test_blur_treats_rows_and_columns_apart():
    image = torch.zeros(1, 1, 8, 20)
    image[..., 4, 10] = 1
    spread = blur(image, blur_matrix(8, 1, 1.0), blur_matrix(20, 5, 1.0))
    assert (spread[0, 0] > 0).nonzero().tolist() == [[4, x] for x in range(8, 13)]


def test_blur_scales_with_the_input():
    assert scale_blur(65, 20.0, 224) == (65, 20.0)
    assert scale_blur(65, 20.0, 448) == (129, 40.0)
    assert scale_blur(65, 20.0, 64) == (19, pytest.approx(20 * 64 / 224))


def test_even_kernel_and_flat_sigma_are_refused():
    with pytest.raises(ValueError, match="odd kernel"):
        blur_matrix(10, 4, 1.0)
    with pytest.raises(ValueError, match="positive sigma"):
        blur_matrix(10, 5, 0.0)


def test_boxes_on_another_grid_cover_every_pixel_they_touch():
    boxes = np.array([[0, 0, 224, 224], [10, 20, 11, 21], [112, 112, 168, 224]])
    found = cover_pixels(boxes, (64 / 224, 64 / 224), (64, 64))
    assert found.tolist() == [[0, 0, 64, 64], [2, 5, 4, 6], [32, 32, 48, 64]]
    assert cover_pixels(boxes, (1.0, 1.0), (224, 224)).tolist() == boxes.tolist()
    assert cover_pixels(np.array([[3, 5, 9, 7]]), (2.0, 0.5), (448, 112)).tolist() == [[1, 10, 5, 14]]


def test_size_score_is_the_normal_density():
    from scipy.stats import norm

    areas = np.array([0.1, 0.2, 0.25, 0.9])
    np.testing.assert_allclose(normal_density(areas), norm.pdf(areas, areas.mean(), areas.std()), rtol=1e-12)
    assert normal_density(np.array([0.3])).tolist() == [1.0]
    assert normal_density(np.array([0.3, 0.3])).tolist() == [1.0, 1.0]
    assert len(normal_density(np.zeros(0))) == 0
