"""Losses of the localizers: labelled pixels, sizes by log barriers, and the classifier's view of the masked image.

The CRF loss has a module of its own, `wsoltrain.losses.crf`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from wsoltrain.pseudo.samplers import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable


def partial_cross_entropy(logits: Tensor, labels: Tensor, *, labelled: Tensor | None = None) -> Tensor:
    """Cross-entropy of the labelled pixels, mean over them; exactly 0, with a zero gradient, where there are none.

    Parameters
    ----------
    logits : float Tensor [B, C, H, W]
        Unnormalised scores.
    labels : int64 Tensor [B, H, W]
        Class of each pixel, `wsoltrain.pseudo.samplers.IGNORE` where it is unknown.
    labelled : Tensor, scalar, optional
        Number to divide by; the labelled pixels of this batch by default. Several processes pass the number of all of
        them over the number of processes, so that averaged gradients are those of one process.
    """
    total = cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    count = (labels != IGNORE).sum() if labelled is None else labelled
    return total / count.clamp_min(1e-6 if labelled is not None else 1)


def barrier(constraint: Tensor, t: float) -> Tensor:
    """Extended log barrier of ``constraint <= 0``, elementwise (Kervadec et al. 2019).

    ``-log(-f) / t`` up to ``f = -1/t²``, then its tangent ``t f - log(1/t²) / t + 1/t``.
    """
    edge = -1.0 / t**2
    inside = -torch.log(-constraint.clamp_max(edge)) / t
    outside = t * constraint - torch.log(constraint.new_tensor(1.0 / t**2)) / t + 1.0 / t
    return torch.where(constraint <= edge, inside, outside)


def barrier_t(epoch: int, *, initial: float = 1.0, factor: float = 1.01, cap: float = 10.0) -> float:
    """Return the steepness of `barrier` in an epoch: ``initial * factor**epoch``, at most `cap`."""
    return min(cap, initial * factor**epoch)


def absolute_size(prob: Tensor, t: float) -> Tensor:
    """Push both background and foreground to be as large as the rest of the loss lets them (TrCAM-V).

    Mean over both channels and the batch of the barrier of ``-area``, area in pixels.

    Parameters
    ----------
    prob : float Tensor [B, 2, H, W]
        Background and foreground, in 0..1.
    t : float
        `barrier_t`.
    """
    return barrier(-prob.sum((2, 3)), t).mean()


def background_larger(prob: Tensor, t: float) -> Tensor:
    """Barrier of ``foreground area - background area <= 0``, mean over the batch."""
    areas = prob.sum((2, 3))
    return barrier(areas[:, 1] - areas[:, 0], t).mean()


def size_near(prob: Tensor, prior: Tensor, t: float, *, margin: float) -> Tensor:
    """Barriers of a foreground share within `margin` of a prior share [B]: both sides, halved, mean over the batch."""
    share = prob[:, 1].mean((1, 2))
    low, high = barrier(prior - margin - share, t), barrier(share - prior - margin, t)
    return (0.5 * (low + high)).mean()


def empty_outside(prob: Tensor, inside: Tensor, t: float) -> Tensor:
    """Barrier of no foreground outside of a box: area of the foreground where `inside` [B, H, W] is false."""
    return barrier((prob[:, 1] * ~inside).sum((1, 2)), t).mean()


def masked_classification(
    classifier: Callable[[Tensor], Tensor], image: Tensor, mask: Tensor, label: Tensor, *, detached: bool = False
) -> Tensor:
    """Cross-entropy of a frozen classifier that sees the image times a mask (DiPS workshop, L_CLS).

    Parameters
    ----------
    classifier : callable
        Images [B, 3, H, W] -> logits [B, classes]; its parameters should not require gradients.
    image : float Tensor [B, 3, H, W]
        Network input.
    mask : float Tensor [B, H, W]
        Foreground, in 0..1: the localizer's own, through which the gradient flows. The released code gives the
        attention map that made the pseudo-labels, without a gradient.
    label : int64 Tensor [B]
        True classes.
    detached : bool
        Cut the gradient, as the released code does: the value is logged and nothing is learned of it.
    """
    seen = mask.detach() if detached else mask
    return cross_entropy(classifier(image * seen[:, None]), label)
