"""Position embeddings on another grid, held against the code that weights were released with."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from networks.checkpoints import dino_state
from wsolpipe.networks.positions import own_positions, released_positions, released_side, stretch
from wsolpipe.networks.vit import build_vit
from wsolpipe.networks.weights import load_into, stretches
from wsolpipe.stages.registry import load_registry

SMALL = {"embed_dim": 48, "depth": 3, "num_heads": 4}


def released(pos_embed, width, height, patch):
    """`interpolate_pos_encoding` of facebookresearch/dino, vision_transformer.py (Apache 2.0)."""
    count = pos_embed.shape[1] - 1
    first, patches = pos_embed[:, 0], pos_embed[:, 1:]
    dim = pos_embed.shape[-1]
    w0, h0 = width // patch + 0.1, height // patch + 0.1
    patches = torch.nn.functional.interpolate(
        patches.reshape(1, int(math.sqrt(count)), int(math.sqrt(count)), dim).permute(0, 3, 1, 2),
        scale_factor=(w0 / math.sqrt(count), h0 / math.sqrt(count)),
        mode="bicubic",
    )
    return torch.cat((first.unsqueeze(0), patches.permute(0, 2, 3, 1).view(1, -1, dim)), dim=1)


@pytest.mark.parametrize("size", [96, 160, 192, 256, 320, 448])
def test_dino_is_dinos_own_code_and_timm_is_timms(size):
    state, side = dino_state(grid=14), size // 16
    loaded = {}
    for positions in ("dino", "timm", "bilinear"):
        vit = build_vit("vit_tiny_patch16_224", size=size, model_args=SMALL)
        assert stretches(vit, state)
        load_into(vit, state, what="vit", positions=positions)
        loaded[positions] = vit.pos_embed.detach()
    torch.testing.assert_close(loaded["dino"], released(state["pos_embed"], size, size, 16), rtol=0, atol=1e-6)
    want = timm.layers.resample_abs_pos_embed(state["pos_embed"], (side, side), (14, 14), num_prefix_tokens=1)
    assert torch.equal(loaded["timm"], want)
    assert (loaded["dino"] - loaded["timm"]).abs().max() > 0.01
    assert (loaded["dino"] - loaded["bilinear"]).abs().max() > 0.01


def test_nothing_is_stretched_at_the_trained_size():
    state = dino_state(grid=14)
    vit = build_vit("vit_tiny_patch16_224", size=224, model_args=SMALL)
    assert not stretches(vit, state)
    load_into(vit, state, what="vit", positions="dino")
    assert torch.equal(vit.pos_embed, state["pos_embed"])


def test_grids_need_not_be_square():
    table = dino_state(grid=6)["pos_embed"][0]
    for positions in ("dino", "timm", "bicubic", "bilinear"):
        made = stretch(table, (6, 6), (4, 9), prefix=1, positions=positions)
        assert made.shape == (37, 48)
        assert torch.equal(made[0], table[0])


def test_released_code_is_known_by_timms_tag():
    assert own_positions("vit_small_patch16_224.dino") == "dino"
    assert own_positions("vit_small_patch14_dinov2.lvd142m") == "dino"
    for name in (
        "vit_small_patch14_reg4_dinov2.lvd142m",
        "vit_tiny_patch16_224.augreg_in21k",
        "vit_tiny_patch16_224",
        "",
    ):
        assert own_positions(name) == "timm"


def in_key(**params):
    return load_registry().params("cls_maps", params).in_key()


def test_keys_of_before_stay_where_the_maps_stay():
    """The word is in the key only where the maps differ from what was made before it existed."""
    dino = "vit_small_patch16_224.dino"
    assert "positions" not in in_key(model=dino)
    assert "positions" not in in_key(model=dino, weights="timm", positions="dino")
    assert in_key(model=dino, size=448)["positions"] == "dino"
    assert "positions" not in in_key(model=dino, size=448, positions="timm")
    assert "positions" not in in_key(model="vit_tiny_patch16_224", weights="own.pth", size=448)
    assert in_key(model="vit_tiny_patch16_224", weights="own.pth", size=448, positions="dino")["positions"] == "dino"
    assert "positions" not in in_key(model=dino, size=448, model_args={"dynamic_img_size": True})
    with pytest.raises((ValidationError, ValueError), match="dynamic_img_size"):
        in_key(model=dino, positions="dino", model_args={"dynamic_img_size": True})


def named(prefix, **more):
    return {**{f"{prefix}{name}": value for name, value in dino_state(depth=1).items()}, **more}


ONE = torch.ones(1, 4)
#: Names of files as their authors save them, and how their code stretches position embeddings.
RELEASED = {
    "dino": (
        {"student": named("module.backbone."), "teacher": named("backbone.", **{"head.mlp.0.weight": ONE})},
        "dino",
    ),
    "ibot": ({"teacher": named("module.backbone.", **{"head.last_layer2.weight_v": ONE}), "epoch": 3}, "dino"),
    "pair": ({"teacher": named("backbone."), "epoch": 3}, "dino"),
    "dinov2": (named("", mask_token=ONE, **{"blocks.0.ls1.gamma": ONE[0]}), "dino"),
    "dinov2_reg": (named("", mask_token=ONE, register_tokens=ONE, **{"blocks.0.ls1.gamma": ONE[0]}), "timm"),
    "supervised": (named("", **{"head.weight": ONE, "head.bias": ONE[0]}), "timm"),
    "moco": ({"state_dict": named("module.base_encoder.")}, "timm"),
    "own": (named("teacher.", **{"teacher_head.last": ONE}), "timm"),
    "backbone": (named(""), None),
    "ibot_teacher": ({"state_dict": named("")}, None),
}


@pytest.mark.parametrize("name", RELEASED)
def test_files_tell_by_their_names_how_positions_are_stretched_and_for_which_size_they_are(tmp_path, name):
    content, way = RELEASED[name]
    path = tmp_path / "w.pth"
    torch.save({**content, "optimizer": {"state": {0: {"step": ONE}}}}, path)
    assert released_positions(str(path)) == way
    assert released_side(f"file:{path}") == 224
    model = {"model": "vit_tiny_patch16_224", "weights": str(path)}
    assert in_key(**model, size=96).get("positions") == ("dino" if way == "dino" else None)
    assert "positions" not in in_key(**model, size=224)  # as stores of before have it
    if "cls_token" in content:
        save_file({name: value.clone() for name, value in content.items()}, tmp_path / "w.safetensors")
        assert released_positions(str(tmp_path / "w.safetensors")) == way
        assert released_side(str(tmp_path / "w.safetensors")) == 224


def test_torn_and_foreign_files_tell_nothing(tmp_path):
    for number, content in enumerate([b"", b"PK\x03\x04torn", b"\xff" * 64]):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(content)
        assert released_positions(str(path)) is None
        assert released_side(str(path)) is None


@pytest.mark.parametrize("stage", ["text_maps", "clip_cams"])
def test_timm_is_another_word_for_bicubic_in_clips_stages(stage):
    registry = load_registry()
    keys = [registry.params(stage, {"model": "ViT-B-16", "positions": word}).in_key() for word in ("bicubic", "timm")]
    assert keys[0] == keys[1]
    assert registry.params(stage, {"model": "ViT-B-16", "positions": "dino"}).in_key()["positions"] == "dino"
