"""Losses: values against their formulas, and gradients that must or must not flow."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from wsoltrain.losses import terms
from wsoltrain.pseudo.samplers import IGNORE


def test_partial_cross_entropy_sees_labelled_pixels_only():
    logits = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.full((2, 4, 4), IGNORE)
    labels[0, 1, 2], labels[1, 3, 0] = 1, 0
    loss = terms.partial_cross_entropy(logits, labels)
    picked = torch.stack([logits[0, :, 1, 2], logits[1, :, 3, 0]])
    torch.testing.assert_close(loss, cross_entropy(picked, torch.tensor([1, 0])))
    loss.backward()
    assert int((logits.grad != 0).any(1).sum()) == 2


def test_partial_cross_entropy_without_labels_is_zero_not_nan():
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = terms.partial_cross_entropy(logits, torch.full((1, 3, 3), IGNORE))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not logits.grad.any()


def test_barrier_follows_its_formula_and_joins_smoothly():
    t = 3.0
    for value in (-5.0, -0.2, -1 / 9 - 1e-6, -1 / 9 + 1e-6, 0.0, 2.0):
        f = torch.tensor(value, dtype=torch.float64)
        inside = value <= -1 / t**2
        plain = -math.log(-value) / t if inside else t * value - math.log(1 / t**2) / t + 1 / t
        torch.testing.assert_close(terms.barrier(f, t), torch.tensor(plain, dtype=torch.float64))
    ends = torch.tensor([-1 / 9 - 1e-9, -1 / 9 + 1e-9], dtype=torch.float64, requires_grad=True)
    slopes = torch.autograd.grad(terms.barrier(ends, t).sum(), ends)[0]
    torch.testing.assert_close(slopes, torch.tensor([t, t], dtype=torch.float64), rtol=1e-6, atol=0)
    assert torch.autograd.gradcheck(lambda f: terms.barrier(f, t), torch.linspace(-4, 3, 9).double().requires_grad_())


def test_barrier_steepens_once_an_epoch_up_to_its_cap():
    assert terms.barrier_t(0) == 1.0
    assert terms.barrier_t(100) == pytest.approx(2.7048, abs=1e-3)  # about 2.7 after 100 epochs
    assert terms.barrier_t(231) < 10.0 == terms.barrier_t(232)


def test_absolute_size_pulls_the_smaller_side_up():
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    skewed = logits + torch.tensor([2.0, 0.0])[None, :, None, None]
    terms.absolute_size(skewed.softmax(1), 1.0).backward()
    assert (logits.grad[:, 1] < 0).all()
    prob = torch.full((2, 2, 4, 4), 0.5)
    assert float(terms.absolute_size(prob, 2.0)) == pytest.approx(-math.log(8) / 2)


def test_a_background_that_is_larger_is_quiet_and_a_smaller_one_pulls():
    small = torch.zeros(1, 2, 10, 10)
    small[:, 0] = 1
    large = 1 - small
    assert terms.background_larger(small, 5.0) < 0 < terms.background_larger(large, 5.0)


def test_classifier_on_the_masked_image_teaches_the_map():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3 * 16, 5, generator=generator)
    image, label = torch.randn(2, 3, 4, 4, generator=generator), torch.tensor([0, 3])
    mask = torch.rand(2, 4, 4, generator=generator, requires_grad=True)
    loss = terms.masked_classification(lambda x: x.flatten(1) @ weight, image, mask, label)
    grad = torch.autograd.grad(loss, mask)[0]
    assert (grad.flatten(1) != 0).any(1).all()
