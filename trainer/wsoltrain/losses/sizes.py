"""Losses of a map's size: log barriers on the areas of background and foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field

from wsoltrain.data.keys import Keys

if TYPE_CHECKING:
    from torch import Tensor


class SizeKeys(Keys):
    """Keys of the size losses."""

    size_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of the absolute size loss of both sides (TrCAM-V: lambda_ASL, 0.01 to 0.05); 0: off",
    )
    larger_weight: float = Field(
        0.0, ge=0, description="Weight of the loss of a foreground larger than the background; 0: off"
    )


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
