"""Swin transformers, read without a class token: which places the last stage's windows attend to (EsViT).

Each query of a window shares its attention among the window's cells; averaged over queries, a cell has the share that
it receives. Windows are put back to their places, so that an image has one map a head. Where windows are shifted, the
shares are shifted back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.attention import shares_of_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_HINT = "name a plain vision transformer with a class token, such as vit_small_patch16_224.dino"


class WindowAttentionShares(nn.Module):
    """Share of attention that each cell of the last stage receives, for chosen blocks of a timm Swin transformer.

    Parameters
    ----------
    swin : nn.Module
        Its weights are shared, not copied.
    blocks : sequence of int
        Ascending numbers of blocks of the last stage.
    """

    reads: ClassVar[str] = "share of attention that each cell receives in the windows of the last stage"
    vit: Any

    def __init__(self, swin: nn.Module, blocks: Sequence[int]) -> None:
        super().__init__()
        self.vit = swin
        self.blocks = tuple(blocks)
        self.heads = int(self.vit.layers[-1].blocks[self.blocks[-1]].attn.num_heads)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:  # noqa: ARG002 - a Swin is built for one size
        """Rows and columns of the last stage."""
        rows, columns = self.vit.layers[-1].blocks[-1].input_resolution
        return int(rows), int(columns)

    def forward(self, images: Tensor) -> Tensor:
        """Read the shares.

        Parameters
        ----------
        images : float tensor [B, 3, H, W]
            Normalised as the model expects.

        Returns
        -------
        float32 tensor [B, blocks, heads, h, w]
            A map sums to the number of windows.
        """
        cells = self.vit.patch_embed(images)
        for stage in self.vit.layers[:-1]:
            cells = stage(cells)
        cells = self.vit.layers[-1].downsample(cells)
        maps = []
        for number, block in enumerate(self.vit.layers[-1].blocks):
            if number in self.blocks:
                maps.append(_shares(block, block.norm1(cells)))
            if number == self.blocks[-1]:
                break
            cells = block(cells)
        return torch.stack(maps, dim=1)


def _shares(block: Any, cells: Tensor) -> Tensor:
    """Maps [B, heads, h, w] of one block, of its normalised input [B, h, w, C]."""
    (down, across), (tall, wide) = block.shift_size, block.window_size
    batch, height, width, channels = cells.shape
    moved = cells.roll((-down, -across), dims=(1, 2))
    parts = moved.reshape(batch, height // tall, tall, width // wide, wide, channels).transpose(2, 3)
    shares = shares_of_windows(block.attn, parts.reshape(-1, tall * wide, channels), block.attn_mask)
    placed = shares.reshape(batch, height // tall, width // wide, -1, tall, wide).permute(0, 3, 1, 4, 2, 5)
    return placed.reshape(batch, -1, height, width).roll((down, across), dims=(2, 3))


def is_windowed(net: nn.Module) -> bool:
    """Whether a network is a Swin transformer of timm (the first version, whose scores are scale · q·kᵀ + bias)."""
    return type(net).__name__ == "SwinTransformer"


def require_windows(net: Any, model: str, size: int) -> None:
    """Refuse a Swin transformer whose last stage's windows do not tile it.

    Raises
    ------
    ConfigError
        Names the nearest sizes that do.
    """
    block = net.layers[-1].blocks[-1]
    if getattr(block, "dynamic_mask", False):
        msg = f"{model} is built for any size; its windows cannot be put back to their places"
        raise ConfigError(msg, hint="leave out model_args.dynamic_img_size and strict_img_size")
    for cells, window in zip(block.input_resolution, block.window_size, strict=True):
        if cells % window:
            step = net.patch_embed.patch_size[0] * 2 ** (len(net.layers) - 1) * window
            below = size // step * step
            near = " or ".join(str(side) for side in (below, below + step) if side)
            msg = f"size={size} gives {model} {cells} cells a side, which windows of {window} do not tile"
            raise ConfigError(msg, hint=f"set size={near}")
