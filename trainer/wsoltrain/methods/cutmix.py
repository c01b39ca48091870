"""CutMix (Yun et al., ICCV 2019): CAM trained on images with a box of another image, and on both labels by area.

The paper draws one share, one box and one order for a whole batch. Here each row has its own share and box, so that
they do not depend on the batch; its partner is the next row of the batch in a random order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from wsoltrain.methods.base import Losses
from wsoltrain.methods.cam import Cam, CamKeys

if TYPE_CHECKING:
    from wsoltrain.methods.base import Batch, Task
    from wsoltrain.pseudo.draws import RowDraws


QUANTILES = 2**14 + 1
"""Of the Beta distribution, between which shares are interpolated: drawn on the device, without waiting for it."""


class CutMixKeys(CamKeys):
    """Keys of CutMix."""

    mix_beta: float = Field(
        1.0,
        gt=0,
        description="Parameter of the Beta distribution of the share of an image that is kept (section 3.1); "
        "1: uniform",
    )
    mix_rate: float = Field(1.0, ge=0, le=1, description="Probability with which an image is mixed")


class CutMix(Cam):
    """CAM on mixed images."""

    Keys = CutMixKeys
    keys: CutMixKeys
    quantiles: Tensor

    def __init__(self, keys: CutMixKeys, task: Task) -> None:
        super().__init__(keys, task)
        self.register_buffer("quantiles", beta_quantiles(keys.mix_beta), persistent=False)

    def augment(self, batch: Batch, draws: RowDraws) -> Batch:
        """Paste a box of another row into each image; adds ``partner``, its label, and ``kept``, the own share."""
        image, label = batch["image"], batch["label"]
        height, width = image.shape[-2:]
        mixed, row, column, order, level = draws.uniform(5).T
        beta = self.keys.mix_beta
        if beta != 1:
            places = level * (len(self.quantiles) - 1)
            low, high = (self.quantiles[each.long()] for each in (places.floor(), places.ceil()))
            level = torch.lerp(low, high, places.frac())
        boxes = cut_boxes(level, row, column, (height, width))
        y, x = torch.arange(height, device=image.device), torch.arange(width, device=image.device)
        y0, x0, y1, x1 = boxes.T[..., None]
        inside = ((y >= y0) & (y < y1))[:, :, None] & ((x >= x0) & (x < x1))[:, None, :]  # [B, H, W]
        inside &= (mixed < self.keys.mix_rate)[:, None, None]
        ranked = order.argsort()
        partner = torch.empty_like(ranked)
        partner[ranked] = ranked.roll(1)
        kept = 1 - inside.flatten(1).float().mean(1)
        pasted = torch.where(inside[:, None], image[partner], image)
        return {**batch, "image": pasted, "partner": label[partner], "kept": kept}

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the cross-entropy of both labels, each by its share of the image."""
        del phase, epoch
        with self.task.autocast():
            scores = self.scores(self.net.forward_features(batch["image"]))
        self.task.lap("forward")
        own, other = (cross_entropy(scores.float(), batch[name], reduction="none") for name in ("label", "partner"))
        kept = batch["kept"]
        return Losses({"classes": (kept * own + (1 - kept) * other).mean()})


def beta_quantiles(beta: float) -> Tensor:
    """Quantiles of Beta(beta, beta) at even steps, float32 [`QUANTILES`]: sums of its density over the logit."""
    logit = np.linspace(-1, 1, 2**16) * 40 / min(beta, 1)
    density = np.exp(-beta * (np.abs(logit) + 2 * np.log1p(np.exp(-np.abs(logit)))))
    reached = density.cumsum() - density / 2
    found = np.interp(np.linspace(0, reached[-1], QUANTILES), reached, 1 / (1 + np.exp(-logit)))
    return torch.tensor(found, dtype=torch.float32)


def cut_boxes(share: Tensor, row: Tensor, column: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes of area 1 - share around random centres, clipped to the image (section 3.1; rounding as released).

    Parameters
    ----------
    share : float Tensor [B]
        Of the image that is kept, before clipping.
    row, column : float Tensor [B]
        Centres in 0..1.
    size : (int, int)
        Height and width, pixels.

    Returns
    -------
    int64 Tensor [B, 4]
        y0, x0, y1, x1; the last ones are outside.
    """
    low, high = [], []
    for centre, side in ((row, size[0]), (column, size[1])):
        half = (side * (1 - share).sqrt()).long() // 2
        middle = (centre * side).long()
        low.append((middle - half).clamp(0, side))
        high.append((middle + half).clamp(0, side))
    return torch.stack([*low, *high], 1)
