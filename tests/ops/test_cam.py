"""Every map method against plain autograd written out from its paper, and against what follows by analysis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian

from wsolpipe.ops import cam as ops

N, C, H, W, K, T = 3, 6, 4, 5, 7, 2


@pytest.fixture(scope="module")
def case():
    """Features, a nonlinear head on them, targets, and the gradients by autograd, image by image."""
    rng = torch.Generator().manual_seed(3)
    features = torch.rand(N, C, H, W, generator=rng) * (torch.rand(N, C, H, W, generator=rng) > 0.3)
    first, second = torch.randn(9, C * H * W, generator=rng) / 6, torch.randn(K, 9, generator=rng)

    def head(activation):
        return second.to(activation) @ torch.tanh(first.to(activation) @ activation.flatten())

    classes = torch.tensor([[0, 3], [2, 2], [6, 1]])
    gradients = torch.stack([
        torch.stack([torch.autograd.functional.jacobian(head, features[n])[k] for k in classes[n]]) for n in range(N)
    ])  # fmt: skip
    return features, head, classes, gradients


@pytest.fixture(scope="module")
def pooled():
    """A network that ends in global average pooling and one linear layer."""
    rng = torch.Generator().manual_seed(4)
    features = torch.randn(N, C, H, W, generator=rng).relu()
    weight = torch.randn(K, C, generator=rng)
    classes = torch.tensor([[0, 3], [2, 5], [6, 1]])
    gradients = (weight[classes] / (H * W))[..., None, None].expand(N, T, C, H, W)
    return features, weight, classes, gradients


def close(got, want):
    scale = np.abs(want).max()
    assert scale > 0
    assert np.abs(got.numpy() - want).max() <= 1e-5 * max(1.0, scale)


def test_cam_is_the_analytic_weighted_sum(pooled):
    features, weight, classes, _ = pooled
    maps = ops.cam(features, weight, classes)
    want = np.zeros((N, T, H, W))
    for n in range(N):
        for t in range(T):
            for c in range(C):
                want[n, t] += float(weight[classes[n, t], c]) * features[n, c].double().numpy()
    close(maps, want)
    # Its mean is the logit (Zhou et al., eq. 1).
    logits = features.mean((-2, -1)) @ weight.T
    torch.testing.assert_close(maps.mean((-2, -1)), logits.gather(1, classes), atol=1e-5, rtol=1e-5)


def test_gradcam_is_the_positive_part_of_cam_up_to_scale_after_global_average_pooling(pooled):
    features, weight, classes, gradients = pooled
    want = ops.cam(features, weight, classes).relu() / (H * W)
    torch.testing.assert_close(ops.gradcam(features, gradients), want, atol=1e-6, rtol=1e-5)
    # There the positive part is taken pixel by pixel of the same sum, so XGrad-CAM agrees as well.
    torch.testing.assert_close(ops.xgradcam(features, gradients), want, atol=1e-6, rtol=1e-5)


def test_gradcam_equals_equations_1_and_2(case):
    features, head, classes, gradients = case
    want = np.zeros((N, T, H, W))
    for n in range(N):
        for t in range(T):
            leaf = features[n].double().requires_grad_()
            (gradient,) = torch.autograd.grad(head(leaf)[classes[n, t]], leaf)
            alpha = [sum(gradient[c, i, j] for i in range(H) for j in range(W)) / (H * W) for c in range(C)]
            want[n, t] = np.maximum(sum(float(alpha[c]) * features[n, c].double().numpy() for c in range(C)), 0)
    close(ops.gradcam(features, gradients), want)


def test_xgradcam_equals_equation_8(case):
    features, _, _, gradients = case
    wide, slopes = features.double().numpy(), gradients.double().numpy()
    want = np.zeros((N, T, H, W))
    for n in range(N):
        for t in range(T):
            for c in range(C):
                total = wide[n, c].sum()
                alpha = sum(wide[n, c, i, j] / total * slopes[n, t, c, i, j] for i in range(H) for j in range(W))
                want[n, t] += alpha * wide[n, c]
    close(ops.xgradcam(features, gradients), np.maximum(want, 0))


def test_layercam_equals_equations_5_to_7(case):
    features, _, _, gradients = case
    wide, slopes = features.double().numpy(), gradients.double().numpy()
    want = np.zeros((N, T, H, W))
    for c in range(C):
        want += np.where(slopes[:, :, c] > 0, slopes[:, :, c], 0) * wide[:, None, c]
    close(ops.layercam(features, gradients), np.maximum(want, 0))


def alpha_by_hand(wide, second, third):
    """Equation 10 of Grad-CAM++ with given derivatives [C, H, W]."""
    alpha = np.zeros_like(wide)
    for c, i, j in np.ndindex(wide.shape):
        below = 2 * second[c, i, j] + wide[c].sum() * third[c, i, j]
        alpha[c, i, j] = second[c, i, j] / below if below else 0.0
    return alpha


def gradcam_plus_plus_by_derivatives(features, logit):
    """Equations 5, 7 and 10 for Y = exp(y), first to third derivatives of Y by autograd itself, divided by Y [H, W]."""

    def score(flat):
        return torch.exp(logit(flat.reshape(features.shape)))

    flat = features.double().flatten()
    first = torch.autograd.functional.jacobian(score, flat)
    second = hessian(score, flat).diagonal()
    third = torch.stack([
        hessian(lambda x, k=k: torch.autograd.functional.jacobian(score, x, create_graph=True)[k], flat)[k, k]
        for k in range(flat.numel())
    ])  # fmt: skip
    wide = features.double().numpy()
    alpha = alpha_by_hand(wide, *(value.detach().numpy().reshape(wide.shape) for value in (second, third)))
    weights = (alpha * np.maximum(first.numpy().reshape(wide.shape), 0)).sum((1, 2))
    return np.maximum((weights[:, None, None] * wide).sum(0), 0) / float(score(flat))


@pytest.mark.parametrize(("bend", "exact"), [(None, True), (torch.relu, True), (torch.tanh, False)])
def test_gradcam_plus_plus_is_its_definition_by_derivatives_after_linear_and_relu_heads_only(bend, exact):
    rng = torch.Generator().manual_seed(9)
    features = torch.rand(3, 2, 2, generator=rng)
    inner, outer = torch.randn(5, 12, generator=rng, dtype=torch.float64), torch.randn(5, generator=rng).double()

    def logit(activation):
        hidden = inner @ activation.flatten().to(inner)
        return outer @ (bend(hidden) if bend else hidden)

    leaf = features.double().requires_grad_()
    (slopes,) = torch.autograd.grad(logit(leaf), leaf)
    got = ops.gradcam_plus_plus(features[None], slopes.float()[None, None])[0, 0].numpy()
    want = gradcam_plus_plus_by_derivatives(features, logit)
    assert want.max() > 0
    apart = np.abs(got - want).max() / want.max()
    assert apart <= 1e-5 if exact else apart > 0.05


def test_gradcam_plus_plus_equals_equations_5_10_and_19_on_a_nonlinear_head(case):
    features, _, _, gradients = case
    wide, slopes = features.double().numpy(), gradients.double().numpy()
    want = np.zeros((N, T, H, W))
    for n in range(N):
        for t in range(T):
            alpha = alpha_by_hand(wide[n], slopes[n, t] ** 2, slopes[n, t] ** 3)
            weights = (alpha * np.maximum(slopes[n, t], 0)).sum((1, 2))
            want[n, t] = np.maximum((weights[:, None, None] * wide[n]).sum(0), 0)
    close(ops.gradcam_plus_plus(features, gradients), want)


def test_smooth_gradcam_plus_plus_averages_each_derivative_and_without_noise_is_gradcam_plus_plus(case):
    features, _, _, gradients = case
    rng = torch.Generator().manual_seed(11)
    noisy = gradients + 0.02 * torch.randn(5, *gradients.shape, generator=rng)
    wide, slopes = features.double().numpy(), noisy.double().numpy()
    want = np.zeros((N, T, H, W))
    for n in range(N):
        for t in range(T):
            alpha = alpha_by_hand(wide[n], (slopes[:, n, t] ** 2).mean(0), (slopes[:, n, t] ** 3).mean(0))
            weights = (alpha * np.maximum(slopes[:, n, t].mean(0), 0)).sum((1, 2))
            want[n, t] = np.maximum((weights[:, None, None] * wide[n]).sum(0), 0)
    close(ops.smooth_gradcam_plus_plus(features, noisy), want)
    same = ops.smooth_gradcam_plus_plus(features, gradients[None].repeat(4, 1, 1, 1, 1, 1))
    torch.testing.assert_close(same, ops.gradcam_plus_plus(features, gradients), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("combination", ["quadratic", "linear"])
def test_nl_ccam_sums_the_cams_of_all_classes_by_rank_with_the_target_first(pooled, combination):
    features, weight, classes, _ = pooled
    logits = features.mean((-2, -1)) @ weight.T
    want = np.zeros((N, T, H, W))
    by_rank = np.linspace(1, -1, K)
    if combination == "quadratic":
        by_rank = np.concatenate([np.linspace(1, 0, K // 2) ** 2, -(np.linspace(0, -1, K - K // 2) ** 2)])
    for n in range(N):
        for t in range(T):
            target = int(classes[n, t])
            order = [target, *[int(k) for k in logits[n].argsort(descending=True) if int(k) != target]]
            for rank, k in enumerate(order):
                single = (weight[k].double()[:, None, None] * features[n].double()).sum(0).numpy()
                want[n, t] += by_rank[rank] * single
    close(ops.nl_ccam(features, weight, logits, classes, combination), want)


def test_dead_features_and_vanished_gradients_give_zeros_and_never_nan():
    features, gradients = torch.zeros(1, C, H, W), torch.zeros(1, T, C, H, W)
    for maps in (
        ops.gradcam(features, gradients),
        ops.gradcam_plus_plus(features, gradients),
        ops.smooth_gradcam_plus_plus(features, gradients[None]),
        ops.xgradcam(features, gradients),
        ops.layercam(features, gradients),
    ):
        assert maps.shape == (1, T, H, W)
        assert (maps == 0).all()


def test_ranks_of_nl_ccam_can_be_split_where_the_released_code_splits_them():
    weights = ops.rank_weights(200, "quadratic", 100)
    assert torch.equal(weights, ops.rank_weights(200, "quadratic"))  # half of 200 classes are its 100
    weights = ops.rank_weights(1000, "quadratic", 100)
    assert (weights[:99] > 0).all()
    assert (weights[101:] < 0).all()
    assert (ops.rank_weights(10, "quadratic", 100) >= 0).all()
