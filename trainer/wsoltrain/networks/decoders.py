"""Decoders from features of a grid to finer ones: two maps at full resolution, or embeddings of patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from collections.abc import Sequence


def _convolution(given: int, made: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(given, made, 3, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU())


class TokenDecoder(nn.Module):
    """Blocks of {x2, conv 3x3-BN-ReLU twice}: a patch grid to pixels (DiPS, TrCAM-V; four for patches of 16).

    The last block ends in BN and ReLU as well, so outputs are not negative, as in the released networks.

    Parameters
    ----------
    channels : int
        Of the input.
    widths : sequence of int
        Channels that each block makes; none for no block, which returns its input.
    mode : "nearest" or "bilinear"
        How a block doubles its input.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], *, mode: Literal["nearest", "bilinear"] = "nearest"
    ) -> None:
        super().__init__()
        self.mode = mode
        pairs = zip((channels, *widths[:-1]), widths, strict=False)
        self.blocks = nn.ModuleList(nn.Sequential(_convolution(a, b), _convolution(b, b)) for a, b in pairs)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', H, W], each side doubled once a block."""
        for block in self.blocks:
            features = block(interpolate(features, scale_factor=2.0, mode=self.mode))
        return features


class UNetDecoder(nn.Module):
    """U-Net decoder of a pyramid (DiPS workshop): nearest x2, skip, two convolutions a stage; a 3x3 head.

    Initialised as the released network: convolutions uniform with variance 2 / fan-in (He et al. 2015), the head
    uniform with variance 2 / (fan-in + fan-out) (Glorot and Bengio 2010) and without bias. PyTorch's default has a
    variance six times smaller, on which the released learning rates act six times harder.

    Parameters
    ----------
    pyramid : sequence of int
        Channels of the encoder's features, fine to coarse, each smaller than the one before, be it by half or not.
    widths : sequence of int
        Of the stages, coarse to fine; a pyramid of fewer levels takes the last ones.
    whole : bool
        Whether the finest level has the size of the image (VGG16), so that nothing is left to be doubled after it.
    """

    def __init__(
        self, pyramid: Sequence[int], widths: Sequence[int] = (256, 128, 64, 32, 16), *, whole: bool = False
    ) -> None:
        super().__init__()
        skips = (*reversed(pyramid[:-1]), *(() if whole else (0,)))
        widths = widths[-len(skips) :]
        below = (pyramid[-1], *widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(_convolution(low + skip, width), _convolution(width, width))
            for low, skip, width in zip(below, skips, widths, strict=True)
        )
        self.head = nn.Conv2d(widths[-1], 2, 3, padding=1)
        for layer in self.stages.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, pyramid: Sequence[Tensor], size: Sequence[int] | None = None) -> Tensor:
        """Features fine to coarse -> logits [B, 2, H, W] at `size`, by default twice the finest level."""
        features, *finer = reversed(list(pyramid))
        for number, stage in enumerate(self.stages):
            if number < len(finer):
                skip = finer[number]
                features = torch.cat([interpolate(features, size=skip.shape[-2:], mode="nearest"), skip], 1)
            else:
                features = interpolate(features, size or [2 * side for side in features.shape[-2:]], mode="nearest")
            features = stage(features)
        logits: Tensor = self.head(features)
        return logits
