"""SAT: a vision transformer with a spatial token."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy

from wsolpipe.contract.errors import ConfigError
from wsoltrain.methods.base import Batch, Losses, Method, Phase, Prediction, Task
from wsoltrain.methods.ts_cam import decayed
from wsoltrain.networks.backbone import BackboneKeys
from wsoltrain.networks.token_maps import build_token_network, masked_block, patch_grid

#: Half the width of the normal distribution, in standard deviations, that the 3 x 3 kernel divides (released code).
SPREAD = 6.0


class SatKeys(BackboneKeys):
    """Keys of SAT.

    Attributes
    ----------
    masked_blocks
        Last blocks whose attention the spatial token masks (paper: 3)
    area
        Mean share of an image that is foreground (paper: CUB 0.25, ILSVRC 0.35)
    area_weight
        Weight of the loss of the batch's mean area; 0: off
    contrast_weight
        Weight of the loss that moves the blurred map to 0 or 1 (paper: normalization loss); 0: off
    stretched
        Scale each map to 0..1 before thresholds (released evaluator); false: the mask as it is
    """

    masked_blocks: int = Field(3, ge=1)
    area: float = Field(0.25, ge=0, le=1)
    area_weight: float = Field(1.0, ge=0)
    contrast_weight: float = Field(1.0, ge=0)
    stretched: bool = True


class _Read(NamedTuple):
    """Class logits [B, C] and the map [B, h, w] in 0..1 of a batch."""

    scores: Tensor
    mask: Tensor


def blur_kernel() -> Tensor:
    """Kernel [1, 1, 3, 3] of the released code: roots of the normal probabilities of three equal parts of -8.2..8.2."""
    edges = torch.linspace(-1, 1, 4, dtype=torch.float64) * (SPREAD + (2 * SPREAD + 1) / 6)
    side = (0.5 * (1 + torch.erf(edges / math.sqrt(2)))).diff().sqrt()
    kernel = torch.outer(side, side)
    return (kernel / kernel.sum()).float()[None, None]


class Sat(Method[SatKeys]):
    """SAT (Wu et al., ICCV 2023): a spatial token beside the class token masks what the last blocks attend to.

    "Spatial-aware token for weakly supervised object localization". The mean of the masks is the map, of the foreground
    of any class and in 0..1. Two losses keep it from being all or nothing: its mean area, and its contrast. The
    released evaluator scales each map between its own lowest and highest value before it applies a threshold.
    """

    def __init__(self, keys: SatKeys, task: Task) -> None:
        super().__init__(keys, task)
        self.net = build_token_network(keys, size=task.size, classes=task.classes, add=self._add_token)
        if keys.masked_blocks > len(self.net.blocks):
            msg = f"masked_blocks={keys.masked_blocks}: backbone={keys.backbone} has {len(self.net.blocks)} blocks"
            raise ConfigError(msg, hint=f"masked_blocks={min(3, len(self.net.blocks))}")

    @staticmethod
    def _add_token(net: Any) -> None:
        """Add the token, its position embedding and the kernel, by the names of published checkpoints."""
        for name in ("loc_token", "loc_embed"):
            setattr(net, name, nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, net.embed_dim), std=0.02)))
        net.register_buffer("weight", blur_kernel())

    def phases(self) -> list[Phase]:
        """Return one phase; biases and vectors are not decayed."""
        return [Phase("train", decayed(self.net))]

    def _read(self, image: Tensor) -> _Read:
        net = self.net
        tokens = net._pos_embed(net.patch_embed(image))  # noqa: SLF001 - timm has no public name for it
        spatial = net.pos_drop((net.loc_token + net.loc_embed).expand(image.shape[0], -1, -1))
        tokens, masks = net.norm_pre(torch.cat([tokens, spatial], 1)), []
        plain = len(net.blocks) - self.keys.masked_blocks
        for block in net.blocks[:plain]:
            tokens = block(tokens)
        for block in net.blocks[plain:]:
            tokens, mask = masked_block(block, tokens, prefix=net.num_prefix_tokens)
            masks.append(mask)
        classes = net.head(patch_grid(net, image, net.norm(tokens)))
        mask = torch.stack(masks).mean(0)[:, net.num_prefix_tokens : -1]
        return _Read(classes.mean((2, 3)), mask.reshape(image.shape[0], *classes.shape[2:]))

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the cross-entropy of the classes, |mean area - area|, and the mean of m (1 - m) of the blurred map."""
        del phase, epoch
        keys, processes = self.keys, self.task.processes
        with self.task.autocast():
            scores, mask = self._read(batch["image"])
        self.task.lap("forward")
        parts = {"classes": cross_entropy(scores.float(), batch["label"])}
        if keys.area_weight:
            own = mask.mean()
            side = torch.sign(processes.sum(own.detach()) / processes.world - keys.area)
            parts["area"] = keys.area_weight * side * (own - keys.area)  # |mean - area|, the mean over all processes
        if keys.contrast_weight:
            blurred = conv2d(mask[:, None], self.net.weight, padding=1)
            parts["contrast"] = keys.contrast_weight * (blurred * (1 - blurred)).mean()
        self.task.lap("losses")
        return Losses(parts)

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the mean mask of the last blocks, one for all classes, and class logits."""
        del labels
        scores, mask = self._read(image)
        return Prediction(mask, not self.keys.stretched, scores)
