"""Frozen vision transformers with the tokens that heads read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from wsolpipe.networks.backbones import build_backbone
from wsolpipe.networks.vit import Tokens, read_tokens, require_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

LAST = 4
"""Blocks whose class tokens the class head reads."""


class FrozenVit(nn.Module):
    """A vision transformer that is read and never trained.

    Parameters
    ----------
    name : str
        Of timm, with a class token and fused q, k, v.
    weights : str or None
        ``timm`` for the model's own pretrained weights, a file, ``data:FILE``, ``timm:NAME`` or ``random:SEED`` (see
        `wsolpipe.networks.sources`); None for random ones.
    size : int
        Side of the input.
    model_args : mapping, optional
        Further arguments of the timm model, for one that has no name of its own.
    attention : bool
        Give the last block's attention too.

    Raises
    ------
    ConfigError
        If timm has no such model, or it is not such a transformer.
    WeightsError
        If the file is missing or does not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str | None,
        size: int,
        model_args: Mapping[str, Any] | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.vit = build_backbone(name, weights=weights, model_args=model_args, img_size=size)
        require_tokens(self.vit, f"backbone={name}", attention=attention)
        self.width: int = self.vit.embed_dim
        self.heads: int = self.vit.blocks[-1].attn.num_heads
        self.cells: int = self.vit.patch_embed.num_patches
        self.patch: int = self.vit.patch_embed.patch_size[0]
        self.wants_attention = attention
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenVit:  # noqa: FBT001, FBT002 - torch's signature
        """Stay in evaluation mode."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tokens:
        """Tokens of normalised images [B, 3, S, S]."""
        return read_tokens(self.vit, image, last=LAST, attention=self.wants_attention)
