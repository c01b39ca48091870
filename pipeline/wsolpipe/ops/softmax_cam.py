"""Softmax-GradCAM of CLIP-ES (Lin et al., CVPR 2023, section 3.1): logits that compete, and maps from the gradient.

What is small is done in float64, whatever comes in: the gradient of a probability near 1 and the sum over channels are
small differences of large numbers, and both cost next to nothing beside a block of the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

if TYPE_CHECKING:
    from torch import Tensor

#: Of the denominator of min-max, as the authors have it.
EPSILON = 1e-7
#: A map whose span is a smaller share of its highest value holds only rounding errors: it counts as flat.
FLAT = 1e-5


def compete(features: Tensor, background: Tensor, names: Tensor, present: Tensor, *, scale: float) -> Tensor:
    """Logits of an image against background words and the classes that are present in it.

    Parameters
    ----------
    features : float tensor [B, D]
        Of the images, of any length.
    background : float tensor [M, D]
        Unit vectors of the background words; M may be 0.
    names : float tensor [B, P, D]
        Unit vectors of the classes that are present, padded at will.
    present : bool tensor [B, P]
        Which of them are there.
    scale : float
        Factor of cosines.

    Returns
    -------
    float64 tensor [B, M + P]
        Background first; -inf where a class is padding.
    """
    unit = normalize(features.double(), dim=-1)
    classes = (names.double() @ unit[:, :, None])[..., 0].masked_fill(~present, -torch.inf)
    return scale * torch.cat([unit @ background.double().T, classes], dim=1)


def target_scores(logits: Tensor, names: int, targets: int, *, softmax: bool) -> Tensor:
    """Scores whose gradients make the maps: of the first `targets` of the `names` classes at the end of `logits`.

    Parameters
    ----------
    logits : float tensor [B, M + names]
    names, targets : int
    softmax : bool
        Probabilities among all of `logits`, or the logits themselves.

    Returns
    -------
    float tensor [B, targets]
    """
    scores = logits.softmax(dim=1) if softmax else logits
    first = logits.shape[1] - names
    return scores[:, first : first + targets]


def class_maps(features: Tensor, weights: Tensor) -> Tensor:
    """Grad-CAM of patch tokens: features weighted by the spatial mean of their gradient, summed, cut at 0.

    Parameters
    ----------
    features : float tensor [B, N, C]
    weights : float64 tensor [B, T, C]
        Mean over the patches of the gradient of each class.

    Returns
    -------
    float64 tensor [B, T, N]
    """
    return (weights @ features.double().mT).relu()


def stretch(maps: Tensor, *, times: int = 2) -> Tensor:
    """Min-max over the last axis, as the authors have it: with 1e-7 in the denominator; flat maps become 0.

    Parameters
    ----------
    maps : float tensor [..., N]
        Not negative.
    times : int
        How often: the authors' code does it twice with a class activation map, once with a refined one.

    Returns
    -------
    float tensor [..., N]
        In [0, 1]. A map that is constant (up to `FLAT`) becomes 0. NaN stays NaN.
    """
    low, high = maps.amin(dim=-1, keepdim=True), maps.amax(dim=-1, keepdim=True)
    flat = high - low <= FLAT * high.abs()
    stretched = (maps - low) / (high - low + EPSILON)
    for _ in range(times - 1):  # the lowest is 0 now: only the height changes
        stretched = stretched / (stretched.amax(dim=-1, keepdim=True) + EPSILON)
    return stretched.masked_fill(flat, 0)
