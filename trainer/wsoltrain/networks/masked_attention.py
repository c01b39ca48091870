"""Attention that a spatial token masks (SAT: Wu et al., "Spatial-aware token", ICCV 2023).

The last token's logits, averaged over heads, go through a sigmoid; what each query gives to a key is multiplied by that
key's mask, after the softmax and without normalising again. As (A * m) v = A (m * v), fused attention computes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from wsolpipe.networks.attention import heads_of

if TYPE_CHECKING:
    from torch import Tensor


def masked_attention(layer: Any, tokens: Tensor, *, prefix: int) -> tuple[Tensor, Tensor]:
    """Output of an attention layer whose keys are masked by the last token.

    Parameters
    ----------
    layer : nn.Module
        timm's ``Attention``.
    tokens : float Tensor [B, N, D]
        Normalised; the spatial token is the last one.
    prefix : int
        Tokens before the patches.

    Returns
    -------
    output : float Tensor [B, N, D]
        As the layer's own.
    mask : float32 Tensor [B, N]
        In 0..1, of each key.
    """
    query, key, value = heads_of(layer, layer.qkv(tokens), prefix=prefix)
    with torch.autocast(tokens.device.type, enabled=False):  # the mask is the localizer's result
        logits = (query[:, :, -1:].float() * layer.scale) @ key.float().mT
        mask = logits.mean(1, keepdim=True).sigmoid()  # [B, 1, 1, N]
    mixed = scaled_dot_product_attention(
        query, key, value * mask.mT.to(value.dtype), dropout_p=layer.attn_drop.p if layer.training else 0.0,
        scale=layer.scale,
    )  # fmt: skip
    mixed = layer.norm(mixed.transpose(1, 2).flatten(2))
    return layer.proj_drop(layer.proj(mixed)), mask[:, 0, 0]


def masked_block(block: Any, tokens: Tensor, *, prefix: int) -> tuple[Tensor, Tensor]:
    """Tokens [B, N, D] after a timm ``Block`` with `masked_attention`, and the mask [B, N]."""
    attended, mask = masked_attention(block.attn, block.norm1(tokens), prefix=prefix)
    tokens = tokens + block.drop_path1(block.ls1(attended))
    return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens)))), mask
