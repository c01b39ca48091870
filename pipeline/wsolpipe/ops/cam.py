"""Class activation maps: what each method makes of a layer's features and their gradients, nothing else.

Everywhere ``features`` is the layer's output A, float [N, C, h, w], ``gradients`` the derivative dy_t / dA of the logit
y_t of each of T target classes, float [N, T, C, h, w], and a result holds one map a target, float [N, T, h, w], neither
stretched nor normalised. Where a method divides by nothing the quotient is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

Combination = Literal["quadratic", "linear"]


@dataclass(frozen=True)
class Seen:
    """Results of one forward and backward pass, for all methods.

    Attributes
    ----------
    features : Tensor [N, C, h, w]
    gradients : Tensor [N, T, C, h, w] or None
        None if no method needs them.
    logits : Tensor [N, K]
    classes : int64 Tensor [N, T]
        The targets.
    weight : Tensor [K, C] or None
        Of the linear layer after global average pooling; None if the network does not end so.
    combination : "quadratic" or "linear"
    positive : int or None
        Of NL-CCAM.
    noisy : Tensor [S, N, T, C, h, w] or None
        Gradients of S noisy copies of the input, for Smooth-Grad-CAM++.
    masked : Tensor [N, T, C] or None
        Logits of the targets for the input masked by each feature, for Score-CAM.
    """

    features: Tensor
    gradients: Tensor | None
    logits: Tensor
    classes: Tensor
    weight: Tensor | None = None
    combination: Combination = "quadratic"
    positive: int | None = None
    noisy: Tensor | None = None
    masked: Tensor | None = None


def cam(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """CAM (Zhou et al., CVPR 2016, eq. 2): features weighted by the class's row of the last layer; signed.

    Parameters
    ----------
    weight : Tensor [K, C]
        Of the linear layer after global average pooling.
    classes : int64 Tensor [N, T]
    """
    return torch.einsum("ntc,nchw->nthw", weight[classes], features)


def gradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1 and 2): features weighted by the mean of their gradient."""
    return weighted(features, gradients.mean(dim=(-2, -1)))


def gradcam_plus_plus(features: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, eq. 5, 10 and 19), whose score is Y = exp(y).

    The factor exp(y), common to all weights of a map, is left out: it overflows and changes no place. Second and third
    derivative of Y are the square and the cube of the first (eq. 16 to 18), which is exact where y is piecewise linear
    in the features – a linear head, or layers with ReLU – and the paper's closed form everywhere else.
    """
    slope = gradients.double()
    share = _pixel_shares(features, slope.square(), slope.pow(3))
    return weighted(features, (share * slope.relu()).sum(dim=(-2, -1)).float())


def smooth_gradcam_plus_plus(features: Tensor, noisy: Tensor) -> Tensor:
    """Smooth Grad-CAM++ (Omeiza et al., 2019, eq. 8): Grad-CAM++ with each derivative averaged over noisy inputs.

    Parameters
    ----------
    features : Tensor [N, C, h, w]
        Of the clean input.
    noisy : Tensor [S, N, T, C, h, w]
        Gradients at the features of each of S noisy copies.
    """
    slopes = noisy.double()
    share = _pixel_shares(features, slopes.square().mean(0), slopes.pow(3).mean(0))
    return weighted(features, (share * slopes.mean(0).relu()).sum(dim=(-2, -1)).float())


def xgradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """XGrad-CAM (Fu et al., BMVC 2020, eq. 8): gradients weighted by each pixel's share of its feature's sum."""
    total = features.sum(dim=(-2, -1))[:, None]
    return weighted(features, _quotient((gradients * features[:, None]).sum(dim=(-2, -1)), total))


def layercam(features: Tensor, gradients: Tensor) -> Tensor:
    """LayerCAM (Jiang et al., TIP 2021, eq. 5 to 7): every pixel of a feature weighted by its own positive gradient."""
    return (gradients.relu() * features[:, None]).sum(dim=2).relu()


def fused_layercam(maps: Sequence[Tensor]) -> Tensor:
    """Fuse LayerCAM's maps of several layers, shallow to deep (Jiang et al., TIP 2021, section III-C).

    Each map is divided by its maximum. Those before the last two, of the first three of VGG16's five stages, are weak
    where the deep ones are strong and are scaled to tanh(2 m). The element-wise maximum is taken on the finest grid, to
    which maps are stretched (bilinear).

    Parameters
    ----------
    maps : sequence of Tensor [N, T, h_l, w_l]
        Of `layercam`.
    """
    grid = max((each.shape[-2:] for each in maps), key=lambda side: side[0] * side[1])
    found = []
    for number, each in enumerate(maps):
        share = _quotient(each, each.amax((-2, -1), keepdim=True))
        scaled = torch.tanh(2 * share) if number < len(maps) - 2 else share
        found.append(interpolate(scaled, size=grid, mode="bilinear"))
    return torch.stack(found).amax(0)


def score_cam(features: Tensor, masked: Tensor) -> Tensor:
    """Score-CAM (Wang et al., CVPR workshops 2020, algorithm 1): features weighted by scores of masked images.

    Weights are the softmax over features of the target's logit for the masked input. The logit of the baseline, which
    the paper subtracts from each, is common to all and drops out.

    Parameters
    ----------
    masked : Tensor [N, T, C]
        Logits of the targets for the input times each feature, stretched to its size and scaled to 0..1.
    """
    return weighted(features, masked.softmax(-1))


def masks_of(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Features [C, h, w] stretched to an input's size (bilinear), each between 0 and 1: [C, H, W]; constant ones 0."""
    wide = interpolate(features[None], size=size, mode="bilinear")[0]
    spread = wide - wide.amin((-2, -1), keepdim=True)
    return _quotient(spread, spread.amax((-2, -1), keepdim=True))


def nl_ccam(
    features: Tensor,
    weight: Tensor,
    logits: Tensor,
    classes: Tensor,
    combination: Combination = "quadratic",
    positive: int | None = None,
) -> Tensor:
    """NL-CCAM's combination of the CAMs of all classes, from likely to unlikely (Yang et al., WACV 2020, section 3.2).

    The target comes first, the others follow by falling logit; for the predicted class that is the authors' order. The
    non-local blocks of the paper belong to the network, not to the map.

    Parameters
    ----------
    weight : Tensor [K, C]
    logits : Tensor [N, K]
    classes : int64 Tensor [N, T]
    combination : "quadratic" or "linear"
    positive : int or None
        See `rank_weights` for both.
    """
    order = logits.argsort(dim=1, descending=True, stable=True)  # [N, K]
    others = order[:, None].expand(-1, classes.shape[1], -1)
    ahead = (others == classes[..., None]).to(torch.int8).argsort(dim=2, descending=True, stable=True)
    ranked = others.gather(2, ahead)  # [N, T, K], the target first
    by_rank = rank_weights(logits.shape[1], combination, positive).to(features).expand(ranked.shape)
    by_class = torch.zeros_like(by_rank).scatter(2, ranked, by_rank)
    return torch.einsum("ntc,nchw->nthw", by_class @ weight, features)


def rank_weights(count: int, combination: Combination, positive: int | None = None) -> Tensor:
    """How much the class of each rank counts in NL-CCAM.

    Parameters
    ----------
    positive : int, optional
        Classes that count positively in the quadratic combination: half of them by default; 100 in the released code,
        or all where there are fewer.

    Returns
    -------
    float32 Tensor [count]
        ``linear``: evenly from 1 to −1; ``quadratic``: squares, from 1 to 0 over the first part and from 0 to −1 over
        the rest.
    """
    if combination == "linear":
        return torch.linspace(1, -1, count)
    half = count // 2 if positive is None else min(positive, count)
    first, second = torch.linspace(1, 0, half), torch.linspace(0, -1, count - half)
    return torch.cat([first.square(), -second.square()])


def weighted(features: Tensor, weights: Tensor) -> Tensor:
    """Positive part of the sum of features [N, C, h, w] weighted by [N, T, C]."""
    return torch.einsum("ntc,nchw->nthw", weights, features).relu()


def _pixel_shares(features: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Alpha of Grad-CAM++ from second and third derivative, float64 [N, T, C, h, w] (eq. 19).

    In float64: the powers of small gradients underflow in float32, and the denominator may cancel.
    """
    total = features.double().sum(dim=(-2, -1))[:, None, :, None, None]
    return _quotient(second, 2 * second + total * third)


def _quotient(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below != 0, above / torch.where(below != 0, below, 1), 0)
