"""Models of transformers so small that a test makes one: random weights, saved as transformers saves published ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

SAM_SIDE = 64


def save_clipseg(folder: Path, *, seed: int = 0, vocabulary: int = 49408) -> Path:
    """A CLIPSeg with patches of 8 and few layers a tower."""
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    tower: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    config = CLIPSegConfig(
        text_config={**tower, "num_hidden_layers": 1, "vocab_size": vocabulary, "max_position_embeddings": 16},
        vision_config={**tower, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8},
        projection_dim=12, reduce_dim=8, extract_layers=[0, 1, 2], decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )  # fmt: skip
    torch.manual_seed(seed)
    return _save(CLIPSegForImageSegmentation(config), folder, 0.1)


def save_sam(folder: Path) -> Path:
    """A Segment Anything of `SAM_SIDE` pixels, with patches of 16 and two layers."""
    from transformers import SamConfig, SamModel

    tower = {"hidden_size": 16, "mlp_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    sides = {"image_size": SAM_SIDE, "patch_size": 16}
    vision = {**tower, **sides, "output_channels": 16, "window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 8}
    prompt = {"hidden_size": 16, **sides, "image_embedding_size": 4, "mask_input_channels": 4}
    decoder = {**tower, "iou_head_hidden_dim": 16, "iou_head_depth": 2}
    torch.manual_seed(0)
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    return _save(SamModel(config), folder, 0.2)


def _save(model: Any, folder: Path, spread: float) -> Path:
    with torch.no_grad():
        for weights in model.parameters():  # its own initialisation leaves all maps flat
            if weights.ndim > 1:
                weights.normal_(std=weights.shape[1] ** -0.5 if weights.ndim == 2 else spread)
    model.save_pretrained(folder)
    return folder
