"""ADL, attention-based dropout layer (Choe and Shim, CVPR 2019): CAM whose features lose their strongest places.

After each named part of the network, the mean of the channels is a map of attention. In training either the places
above a threshold are dropped, or all are weighted by the sigmoid of the map; one draw for a batch and part. Nothing is
done outside of training. The layers have no parameters and are hooks, so names of tensors stay those of the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field

from wsoltrain.methods.cam import Cam, CamKeys
from wsoltrain.networks.backbone import find_part, hooked

if TYPE_CHECKING:
    from torch import Tensor

    from wsoltrain.methods.base import Batch, Losses, Task
    from wsoltrain.pseudo.draws import RowDraws


class AdlKeys(CamKeys):
    """Keys of ADL."""

    drop_parts: tuple[str, ...] = Field(
        ("layer3.0", "layer4.0", "layer4.2"),
        min_length=1,
        description="Parts of the network after which features are dropped or weighted; those of the standard "
        "evaluation's ResNet-50",
    )
    drop_rate: float = Field(
        0.75,
        ge=0,
        le=1,
        description="Probability of dropping instead of weighting (section 3.2); 0.75 in the standard evaluation, 0.4 "
        "in the thesis, chapter 4",
    )
    drop_threshold: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Share of the highest attention from which places are dropped (section 3.2)",
    )


class Adl(Cam):
    """CAM with dropped places."""

    Keys = AdlKeys
    keys: AdlKeys

    def __init__(self, keys: AdlKeys, task: Task) -> None:
        super().__init__(keys, task)
        self.places = tuple(find_part(self.net, name, key="drop_parts") for name in keys.drop_parts)

    def augment(self, batch: Batch, draws: RowDraws) -> Batch:
        """Draw what is done after each part, by the numbers of the batch's first row; adds ``dropping``."""
        return {**batch, "dropping": draws.uniform(len(self.keys.drop_parts)) < self.keys.drop_rate}

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the cross-entropy of the classes."""

        def hook(drop: Tensor) -> Any:
            return lambda _part, _given, made: attend_or_drop(made, drop=drop, threshold=self.keys.drop_threshold)

        with hooked((part, hook(drop)) for part, drop in zip(self.places, batch["dropping"][0], strict=True)):
            return super().losses(batch, phase, epoch)


def attend_or_drop(features: Tensor, *, drop: Tensor, threshold: float) -> Tensor:
    """Features [B, C, h, w] without the places of the strongest attention, or weighted by its sigmoid.

    Parameters
    ----------
    drop : bool Tensor, scalar
        Which of both; a tensor, so that a GPU is not waited for.
    """
    attention = features.mean(1, keepdim=True)
    kept = attention < threshold * attention.amax((2, 3), keepdim=True)
    return features * torch.where(drop, kept.to(attention.dtype), torch.sigmoid(attention))
