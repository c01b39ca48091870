"""The CRF filter and loss against the exact kernel."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
import torch

from exact_crf import accuracy, exact_filter, permutohedral_filter, photographs, soft_maps
from wsolpipe.contract.errors import ConfigError
from wsoltrain.crf import crf_loss, dense_filter
from wsoltrain.losses import crf

PHOTOGRAPHS = 24


def small(dtype=torch.float32, size=(9, 7), batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (batch, 3, *size), generator=generator, dtype=torch.uint8)
    values = torch.rand(batch, 2, *size, generator=generator, dtype=dtype)
    return values, image


@pytest.mark.parametrize("size", [96, 128])
def test_gradient_direction_and_strength_on_photographs(shared, size):
    """At every 23rd pixel, a number that no side is a multiple of."""
    cosines, errors = accuracy(shared, PHOTOGRAPHS, size, dense_filter, every=23)
    print(f"{size}²: cosine median {np.median(cosines):.5f} worst {cosines.min():.5f}", end=" ")
    print(f"sum within {100 * np.abs(errors).max():.2f} %")
    assert np.median(cosines) >= 0.9995
    assert cosines.min() >= 0.998
    assert np.abs(errors).max() <= 0.03


def test_reference_normalisation_pulls_as_hard_as_the_lattice_of_the_papers(shared):
    images, maps = photographs(shared, 6, 112), soft_maps(6, 112)
    strength = []
    for image, foreground in zip(images, maps, strict=True):
        prob = torch.cat([1 - foreground, foreground])[None].requires_grad_()
        crf_loss(prob, image[None], normalisation="reference", sums_to_one=True).backward()
        values = torch.cat([torch.ones_like(foreground), foreground])
        ones, smooth = permutohedral_filter(values, image, 15.0, 100.0)
        theirs, ours = ones - 2 * smooth, prob.grad[0, 1].double()
        assert float((theirs * ours).sum() / theirs.norm() / ours.norm()) > 0.99
        strength.append(float(ours.norm() / theirs.norm()))
    print("gradient over that of the lattice:", " ".join(f"{each:.3f}" for each in strength))
    assert min(strength) > 0.85
    assert max(strength) < 1.15
    assert abs(np.mean(strength) - 1) < 0.06


def test_a_quarter_of_the_pixels_pulls_a_sixteenth_as_hard(shared):
    images, maps = photographs(shared, 4, 128), soft_maps(4, 128)
    prob = torch.cat([1 - maps, maps], 1)
    ratio = crf_loss(prob, images, scale=0.5) / crf_loss(prob, images)
    assert 1 / 19 < float(ratio) < 1 / 13.5


def test_tensor_path_agrees_on_photographs(shared, monkeypatch):
    images, maps = photographs(shared, PHOTOGRAPHS, 96), soft_maps(PHOTOGRAPHS, 96)
    values = torch.cat([torch.ones_like(maps), maps], 1)
    compiled = dense_filter(values, images)
    monkeypatch.setattr(crf, "_filter_compiled", crf._filter_tensors)  # what a GPU runs
    torch.testing.assert_close(dense_filter(values, images), compiled, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_compiled_and_tensor_paths_agree(channels, monkeypatch):
    values, image = small(size=(24, 31), batch=3)
    values = values[:, :1].repeat(1, channels, 1, 1) * torch.arange(1, channels + 1)[:, None, None]
    compiled = dense_filter(values, image)
    monkeypatch.setattr(crf, "_filter_compiled", crf._filter_tensors)
    tensors = dense_filter(values, image)
    torch.testing.assert_close(compiled, tensors, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(dense_filter(values.double(), image), tensors.double(), rtol=1e-4, atol=1e-3)


def test_threads_change_nothing():
    values, image = small(size=(16, 16), batch=4)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = dense_filter(values, image)
        torch.set_num_threads(2)
        two = dense_filter(values, image)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, two)


def test_images_of_a_batch_do_not_touch_each_other():
    values, image = small(batch=3)
    together = dense_filter(values, image)
    for number in range(3):
        alone = dense_filter(values[number : number + 1], image[number : number + 1])
        torch.testing.assert_close(together[number], alone[0])


def test_one_colour_leaves_the_spatial_gaussian():
    image = torch.full((1, 3, 12, 20), 77, dtype=torch.uint8)
    values = torch.rand(1, 1, 12, 20, generator=torch.Generator().manual_seed(1))
    exact = exact_filter(values[0], image[0], 15.0, 6.0)
    filtered = dense_filter(values, image, sigma_xy=6.0)[0].double()
    assert float((filtered / exact - 1).abs().max()) < 0.06


def test_spatial_terms_multiply_to_the_gaussian_within_a_tenth_and_to_its_sums_within_a_hundredth():
    height, width, sigma = 24, 40, 6.0
    down, across = crf._spatial_terms(height, width, sigma)
    terms = (down[:, :, None] * across[:, None, :]).reshape(len(down), -1)
    at = torch.cartesian_prod(torch.arange(height).double(), torch.arange(width).double())
    exact = torch.exp(-torch.cdist(at, at).square() / (2 * sigma**2))
    made = terms.T @ terms
    assert float((made - exact).abs().max()) < 0.1
    assert float((made.sum(1) / exact.sum(1) - 1).abs().max()) < 0.01


def test_position_can_be_left_out():
    values, image = small()
    filtered = dense_filter(values, image, sigma_xy=math.inf)
    exact = torch.stack([exact_filter(values[b], image[b], 15.0, 1e9) for b in range(2)])
    wide = dense_filter(values, image, sigma_xy=1e7)
    torch.testing.assert_close(filtered, wide, rtol=1e-4, atol=1e-4)
    assert float((filtered.double().sum() / exact.sum() - 1).abs()) < 0.03


def test_filter_is_its_own_transpose():
    values, image = small(torch.float64, batch=1)
    left, right = values[:, :1], values[:, 1:]
    torch.testing.assert_close((left * dense_filter(right, image)).sum(), (right * dense_filter(left, image)).sum())


def test_filter_gradcheck():
    values, image = small(torch.float64, size=(5, 4))
    assert torch.autograd.gradcheck(lambda v: dense_filter(v, image), values.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_loss_gradcheck_through_softmax_and_straight(scale):
    values, image = small(torch.float64, size=(6, 4))
    logits = values.requires_grad_()
    for loss in (
        lambda v: crf_loss(v.softmax(1), image, scale=scale),
        lambda v: crf_loss(v, image, scale=scale, sums_to_one=False),
    ):
        assert torch.autograd.gradcheck(loss, logits, fast_mode=True)  # in a direction of all values at once


def test_loss_is_the_energy_of_its_docstring_and_its_gradient():
    values, image = small(torch.float64)
    prob = values.softmax(1).requires_grad_()
    loss = crf_loss(prob, image)
    loss.backward()
    ones = dense_filter(torch.ones_like(prob), image)
    smooth = dense_filter(prob.detach(), image)
    torch.testing.assert_close(loss, (prob.detach() * (ones - smooth)).sum() / 2)
    torch.testing.assert_close(prob.grad, (ones - 2 * smooth) / 2)


def test_two_filtered_channels_do_as_well_as_three():
    values, image = small()
    grads = []
    for sums_to_one in (True, False, None):
        prob = values.softmax(1).detach().requires_grad_()
        crf_loss(prob, image, sums_to_one=sums_to_one).backward()
        grads.append(prob.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-3)
    assert torch.equal(grads[0], grads[2])


def test_uneven_segmentation_costs_more_than_a_segmentation_along_colours():
    image = torch.full((1, 3, 16, 16), 20.0)
    image[..., 8:] = 220.0
    along = torch.zeros(1, 2, 16, 16)
    along[:, 0, :, :8], along[:, 1, :, 8:] = 1, 1
    across = along.transpose(2, 3).contiguous()
    assert crf_loss(along, image) < 0.01 * crf_loss(across, image)


def test_bfloat16_maps_are_filtered_in_float32():
    values, image = small()
    half = dense_filter(values.bfloat16(), image)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), dense_filter(values.bfloat16().float(), image), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("values", "image", "more", "told"),
    [
        ((1, 2, 4, 4), (1, 3, 4, 5), {}, r"\[1, 3, 4, 5\]"),
        ((1, 2, 4, 4), (2, 3, 4, 4), {}, r"\[2, 3, 4, 4\]"),
        ((1, 3, 4, 4), (1, 3, 4, 4), {}, "background and foreground"),
        ((1, 2, 4, 4), (1, 3, 4, 4), {"sigma_rgb": 0.0}, "positive"),
    ],
)
def test_wrong_inputs_are_named(values, image, more, told):
    with pytest.raises(ConfigError, match=told):
        crf_loss(torch.rand(values), torch.rand(image), **more)


def test_too_fine_a_colour_grid_is_refused():
    _, image = small(size=(32, 32), batch=1)
    with pytest.raises(ConfigError, match="colour grid"):
        dense_filter(soft_maps(1, 32), image, sigma_rgb=0.5)


def test_the_number_of_products_at_once_is_one_constant(monkeypatch):
    """Loops without bounds checks and the code that fills their arrays agree on it, whatever it is."""
    from wsoltrain.losses import crf_loops

    generator = torch.Generator().manual_seed(0)
    values = torch.rand(1, 2, 12, 10, generator=generator)
    image = torch.rand(1, 3, 12, 10, generator=generator) * 60
    expected = dense_filter(values, image, sigma_xy=4.0)
    monkeypatch.setattr(crf_loops, "LANES", 3)
    for name in ("splat", "slice_grid"):
        monkeypatch.setattr(crf_loops, name, numba.njit(getattr(crf_loops, name).py_func))  # reads the constant now
    torch.testing.assert_close(dense_filter(values, image, sigma_xy=4.0), expected, rtol=1e-4, atol=1e-5)
