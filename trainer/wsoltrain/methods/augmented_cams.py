"""CAM trained on changed images or features: CutMix, HaS and ADL. Nothing is changed outside of training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from wsolpipe.contract.errors import ConfigError
from wsoltrain.data.keys import Texts  # noqa: TC001 - pydantic reads it
from wsoltrain.methods.base import Batch, Losses, Task
from wsoltrain.methods.cam import Cam, CamKeys
from wsoltrain.networks.backbone import find_part, hooked

if TYPE_CHECKING:
    from wsoltrain.pseudo.draws import RowDraws

#: Of the Beta distribution, between which shares are interpolated: drawn on the device, without waiting for it.
QUANTILES = 2**14 + 1


class CutMixKeys(CamKeys):
    """Keys of CutMix.

    Attributes
    ----------
    mix_beta
        Parameter of the Beta distribution of the share of an image that is kept (section 3.1); 1: uniform
    mix_rate
        Probability with which an image is mixed
    """

    mix_beta: float = Field(1.0, gt=0)
    mix_rate: float = Field(1.0, ge=0, le=1)


class CutMix(Cam):
    """CutMix (Yun et al., ICCV 2019): CAM trained on images with a box of another image, and on both labels by area.

    The paper draws one share, one box and one order for a whole batch. Here each row has its own share and box, so that
    they do not depend on the batch; its partner is the next row of the batch in a random order.
    """

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


class HasKeys(CamKeys):
    """Keys of HaS.

    Attributes
    ----------
    hide_cells
        Sides of hidden cells in pixels, of which each image draws one; 0 hides nothing. (4) is the standard
        evaluation's, (0, 16, 32, 44, 56) the paper's (section 4.1)
    hide_area
        Share of the image that a cell has, instead of hide_cells; at least a pixel (thesis, Tab. 4.4)
    hide_rate
        Probability with which each cell is hidden
    """

    hide_cells: tuple[int, ...] = Field((4,), min_length=1)
    hide_area: float | None = Field(None, ge=0, le=1)
    hide_rate: float = Field(0.5, ge=0, le=1)


class Has(Cam):
    """HaS, hide-and-seek (Singh and Lee, ICCV 2017): CAM trained on images with random cells hidden.

    Hidden cells are 0 after normalisation, the mean colour.
    """

    Keys = HasKeys
    keys: HasKeys

    def __init__(self, keys: HasKeys, task: Task) -> None:
        super().__init__(keys, task)
        wrong = [side for side in keys.hide_cells if not 0 <= side <= task.size]
        if wrong:
            msg = f"hide_cells={wrong[0]}: a cell has a side of 0 to {task.size} pixels, the image's"
            raise ConfigError(msg, hint=f"hide_cells=[4], or another size= than {task.size}")

    def augment(self, batch: Batch, draws: RowDraws) -> Batch:
        """Hide cells of each image."""
        image = batch["image"]
        return {**batch, "image": image.masked_fill(self._hidden(image, draws), 0.0)}

    def _hidden(self, image: Tensor, draws: RowDraws) -> Tensor:
        """Pixels that are hidden, bool [B, 1, S, S]."""
        height, width = image.shape[-2:]
        area = self.keys.hide_area
        sides = self.keys.hide_cells if area is None else (max(1, round(math.sqrt(area * height * width))),)
        drawn = (draws.uniform(1)[:, 0] * len(sides)).long()  # which side each image has
        hidden = torch.zeros(len(image), 1, height, width, dtype=torch.bool, device=image.device)
        for number, side in enumerate(sides):
            if side == 0:
                continue
            rows, columns = -(-height // side), -(-width // side)
            cells = draws.uniform(rows * columns, purpose=1 + number).view(-1, 1, rows, columns) < self.keys.hide_rate
            pixels = cells.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :height, :width]
            hidden |= pixels & (drawn == number)[:, None, None, None]
        return hidden


class AdlKeys(CamKeys):
    """Keys of ADL.

    Attributes
    ----------
    drop_parts
        Parts of the network after which features are dropped or weighted; those of the standard evaluation's ResNet-50
    drop_rate
        Probability of dropping instead of weighting (section 3.2); 0.75 in the standard evaluation, 0.4 in the thesis,
        chapter 4
    drop_threshold
        Share of the highest attention from which places are dropped (section 3.2)
    """

    drop_parts: Texts = Field(("layer3.0", "layer4.0", "layer4.2"), min_length=1)
    drop_rate: float = Field(0.75, ge=0, le=1)
    drop_threshold: float = Field(0.9, ge=0, le=1)


class Adl(Cam):
    """ADL, attention-based dropout (Choe and Shim, CVPR 2019): CAM whose features lose their strongest places.

    After each named part of the network, the mean of the channels is a map of attention. Either the places above a
    threshold are dropped, or all are weighted by the sigmoid of the map; one draw for a batch and part. The layers have
    no parameters and are hooks, so names of tensors stay those of the network.
    """

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
