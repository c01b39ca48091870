"""Vision towers of CLIP files as timm networks: the same tokens as by open_clip, for plain towers and timm's."""

from __future__ import annotations

import pytest
import torch

from wsolpipe.images.dataset import data_folder
from wsolpipe.models.clip import load_clip
from wsolpipe.networks.architectures import build_backbone
from wsolpipe.networks.sources import resolve
from wsoltrain.networks.encoders import PatchEncoder


def test_the_demo_clip_is_read_as_a_timm_transformer():
    weights = data_folder() / "demo/weights/demo_clip.safetensors"
    clip = load_clip(str(weights.with_suffix(".json")), resolve(str(weights)))
    args = {"patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4, "qk_norm": True}
    encoder = PatchEncoder("vit_tiny_patch16_224", weights=str(weights), size=96, model_args=args)
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    visual = clip.model.visual
    with torch.no_grad():
        tokens, _ = clip.tower.tokens(images)
        expected = visual.ln_post(visual.transformer(tokens))[:, 1:]
    # timm's layer norms of this network add 1e-6 to a variance, open_clip's 1e-5.
    torch.testing.assert_close(encoder(images).flatten(2).mT, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("wrapped", ["timm", "openai"])
def test_other_tensors_of_a_clip_are_left_out(tmp_path, wrapped):
    from safetensors.torch import save_file

    args = {"embed_dim": 32, "depth": 2, "num_heads": 2}
    torch.manual_seed(0)
    net = build_backbone("vit_base_patch16_clip_224", weights=None, model_args=args, img_size=32)
    state = {f"visual.trunk.{name}": value for name, value in net.state_dict().items()}
    if wrapped == "openai":
        spelt = {"qkv.": "in_proj_", "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
        spelt |= {"norm_pre": "ln_pre", ".norm1": ".ln_1", ".norm2": ".ln_2", "trunk.norm.": "trunk.ln_post."}
        spelt |= {"blocks.": "transformer.resblocks.", "patch_embed.proj": "conv1", "trunk.": ""}
        spelt |= {"pos_embed": "positional_embedding", "cls_token": "class_embedding"}
        named = {}
        for name, value in state.items():
            own = name
            for ours, theirs in spelt.items():
                own = own.replace(ours, theirs)
            flat = own.endswith(("positional_embedding", "class_embedding"))
            named[own] = value.squeeze().contiguous() if flat else value
        state = {**named, "visual.proj": torch.randn(32, 16)}
    state |= {"text_projection": torch.randn(8, 16), "logit_scale": torch.tensor(4.6)}
    save_file(state, tmp_path / "clip.safetensors")
    torch.manual_seed(1)
    path = str(tmp_path / "clip.safetensors")
    loaded = build_backbone("vit_base_patch16_clip_224", weights=path, model_args=args, img_size=32)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, msg=name)
