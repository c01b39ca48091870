"""Small vision-transformer checkpoints under the official DINO key names, written out here independently of timm."""

from __future__ import annotations

import torch


def dino_state(*, width=48, depth=3, patch=16, grid=14, seed=0, dtype=torch.float32):
    """Tensors of a ViT as the DINO repository's ``state_dict()`` names them (vision_transformer.py, class token on)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=0.08):
        return (torch.randn(*shape, generator=generator) * scale).to(dtype)

    state = {
        "cls_token": draw(1, 1, width),
        "pos_embed": draw(1, 1 + grid * grid, width),
        "patch_embed.proj.weight": draw(width, 3, patch, patch),
        "patch_embed.proj.bias": draw(width),
    }
    for block in range(depth):
        for norm in ("norm1", "norm2"):
            state[f"blocks.{block}.{norm}.weight"] = 1 + draw(width)
            state[f"blocks.{block}.{norm}.bias"] = draw(width)
        for name, rows, columns in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            state[f"blocks.{block}.{name}.weight"] = draw(rows, columns, scale=0.2)
            state[f"blocks.{block}.{name}.bias"] = draw(rows)
    state["norm.weight"] = 1 + draw(width)
    state["norm.bias"] = draw(width)
    return state
