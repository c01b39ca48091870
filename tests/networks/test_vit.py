"""Class-token maps equal the full attention matrix that timm itself computes."""

from __future__ import annotations

import pytest
import timm
import torch

from networks.checkpoints import dino_state
from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.sources import resolve
from wsolpipe.networks.vit import ClassTokenAttention, block_numbers, build_vit
from wsolpipe.networks.weights import load_into, load_state

TINY = {"embed_dim": 48, "depth": 3, "num_heads": 4}


def stirred(vit, seed=0, scale=1.5):
    """Weights large enough that attention is far from uniform, and every bias and norm matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale / parameter.shape[-1] ** 0.5)
    return vit


def full_attention(vit, images, blocks):
    """Whole softmax(q·kᵀ) of each block, taken from timm's own unfused forward as it enters the dropout layer."""
    seen = {}
    hooks = []
    for number in blocks:
        attention = vit.blocks[number].attn
        attention.fused_attn = False
        hooks.append(
            attention.attn_drop.register_forward_pre_hook(
                lambda module, args, number=number: seen.__setitem__(number, args[0])
            )
        )
    with torch.inference_mode():
        vit.forward_features(images)
    for hook in hooks:
        hook.remove()
    return [seen[number] for number in blocks]


def assert_rows_are_those_of_the_full_matrix(vit, size, blocks, batch=2):
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))
    reader = ClassTokenAttention(vit, blocks)
    with torch.inference_mode():
        maps = reader(images)
    h, w = reader.grid((size, size))
    assert maps.shape == (batch, len(blocks), reader.heads, h, w)
    assert maps.dtype == torch.float32
    for position, full in enumerate(full_attention(vit, images, blocks)):
        want = full[:, :, 0, vit.num_prefix_tokens :].reshape(batch, -1, h, w)
        assert (maps[:, position] - want).abs().max() <= 1e-5
        assert want.amax() > 2 * want.mean()  # not uniform: the comparison means something
    return maps


@pytest.mark.parametrize(
    ("model", "options", "size"),
    [
        ("vit_tiny_patch16_224", {}, 224),
        ("vit_tiny_patch16_224", {}, 448),
        ("vit_tiny_patch16_224", {"patch_size": 8}, 224),
        ("vit_tiny_patch16_224", {"qk_norm": True}, 96),
        ("vit_tiny_patch16_224", {"qkv_bias": False, "init_values": 0.5}, 96),
        ("vit_tiny_patch16_224", {"reg_tokens": 4}, 96),
        ("vit_tiny_patch16_224", {"reg_tokens": 4, "no_embed_class": True, "pre_norm": True}, 96),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}, 160),
        ("vit_small_patch14_reg4_dinov2", {}, 112),
        ("deit_tiny_distilled_patch16_224", {}, 96),
        ("eva02_tiny_patch14_224", {}, 112),
        ("eva02_tiny_patch14_224", {"qkv_fused": True}, 112),
        ("vit_small_patch16_dinov3", {}, 96),
        ("beit_base_patch16_224", {}, 96),
        ("beit_base_patch16_224", {"use_abs_pos_emb": True, "init_values": None}, 96),
    ],
)
def test_rows_equal_the_full_softmax_of_the_same_block(model, options, size):
    vit = stirred(build_vit(model, size=size, model_args=TINY | options))
    assert_rows_are_those_of_the_full_matrix(vit, size, (0, 2))


def test_grouped_queries_and_blocks_that_normalise_afterwards():
    from timm.models.vision_transformer import ResPostBlock

    options = TINY | {"block_fn": ResPostBlock, "img_size": 96, "num_classes": 0}
    vit = stirred(timm.create_model("vit_tiny_patch16_224", **options).eval())
    assert_rows_are_those_of_the_full_matrix(vit, 96, (1, 2))
    layer = timm.layers.AttentionRope(48, num_heads=4, num_kv_heads=2, qkv_fused=False).eval()
    vit.blocks[2].attn = stirred(layer)
    assert_rows_are_those_of_the_full_matrix(vit, 96, (1, 2))


@pytest.mark.parametrize("size", [224, 448])
def test_real_weights_equal_the_full_softmax(shared, size):
    weights = resolve(str(shared / "weights/vit_tiny_patch16_224_in1k.safetensors"))
    vit = build_vit("vit_tiny_patch16_224", size=size)
    load_into(vit, load_state(weights), what="ViT-Ti", ignore=("head.",))
    assert_rows_are_those_of_the_full_matrix(vit, size, (8, 11), batch=1)


@pytest.mark.parametrize(("size", "patch"), [(224, 16), (448, 16), (224, 8)])
def test_official_dino_checkpoint_gives_what_timms_model_with_the_same_tensors_gives(tmp_path, size, patch):
    state = dino_state(patch=patch, grid=224 // patch)
    torch.save({"teacher": {f"backbone.{key}": value for key, value in state.items()}}, tmp_path / "dino.pth")
    ours = build_vit("vit_tiny_patch16_224", size=size, model_args=TINY | {"patch_size": patch})
    load_into(ours, load_state(resolve(str(tmp_path / "dino.pth"))), what="small ViT")
    # timm's own way: load at 224, then let the model change its size.
    theirs = timm.create_model("vit_tiny_patch16_224", patch_size=patch, num_classes=0, **TINY).eval()
    theirs.load_state_dict(state)
    theirs.set_input_size((size, size))
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        maps = ClassTokenAttention(ours, (2,))(images)
        assert torch.equal(maps, ClassTokenAttention(theirs, (2,))(images))
        assert torch.equal(ours(images), theirs(images))
    (full,) = full_attention(theirs, images, (2,))
    assert (maps[:, 0].flatten(2) - full[:, :, 0, 1:]).abs().max() <= 1e-5


def test_positions_resampled_at_loading_or_on_the_fly_agree():
    state = dino_state()
    images = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    maps = []
    for options in ({}, {"dynamic_img_size": True}):
        vit = build_vit("vit_tiny_patch16_224", size=160, model_args=TINY | options)
        load_into(vit, state, what="small ViT")
        maps.append(ClassTokenAttention(vit, (2,))(images))
    assert (maps[0] - maps[1]).abs().max() <= 1e-6


def test_nothing_after_the_last_row_is_computed():
    vit = build_vit("vit_tiny_patch16_224", size=96, model_args=TINY)
    for unused in (vit.blocks[1].mlp, vit.blocks[1].attn.proj, vit.blocks[2], vit.norm):
        unused.register_forward_hook(lambda *args: pytest.fail("computed in vain"))
    ClassTokenAttention(vit, (0, 1))(torch.zeros(1, 3, 96, 96))


def test_autocast_keeps_rows_in_float32_and_close():
    vit = stirred(build_vit("vit_tiny_patch16_224", size=96, model_args=TINY), scale=0.1)
    reader, images = ClassTokenAttention(vit, (2,)), torch.zeros(1, 3, 96, 96)
    with torch.inference_mode():
        exact = reader(images)
        with torch.autocast("cpu", torch.bfloat16):
            rough = reader(images)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05 * exact.max()


@pytest.mark.parametrize(
    ("given", "want"),
    [
        (None, (11,)),
        (3, (3,)),
        (-2, (10,)),
        ([11, 8, 8], (8, 11)),
        ("8-11", (8, 9, 10, 11)),
        ("5", (5,)),
        ("-1", (11,)),
    ],
)
def test_blocks_may_be_written_in_every_way(given, want):
    assert block_numbers(given, 12) == want


@pytest.mark.parametrize("given", [12, -13, [], "", "8-", "11-8", "a-b", "8-12"])
def test_blocks_outside_the_model_are_refused(given):
    with pytest.raises(ConfigError, match="0 to 11"):
        block_numbers(given, 12)


def test_unknown_models_and_arguments_name_what_is_known():
    with pytest.raises(ConfigError, match="did you mean 'vit_small_patch16_224'"):
        build_vit("vit_smal_patch16_224", size=224)
    with pytest.raises(ConfigError, match="resnet18 gives no class-token maps: it is not a vision transformer"):
        build_vit("resnet18", size=224)
    with pytest.raises(ConfigError, match="patches"):
        build_vit("vit_tiny_patch16_224", size=224, model_args={"patches": 3})
    with pytest.raises(ConfigError, match="multiple of the patch size 16") as raised:
        build_vit("vit_tiny_patch16_224", size=230)
    assert "size=224 or 240" in raised.value.hint
    with pytest.raises(ConfigError, match="img_size=448 contradicts size=224"):
        build_vit("vit_tiny_patch16_224", size=224, model_args={"img_size": 448})


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}, "no class token"),
        ("vit_tiny_patch16_224", {"attn_layer": "diff"}, "DiffAttention"),
        ("beit_base_patch16_224", {"use_shared_rel_pos_bias": True}, "leave out use_shared_rel_pos_bias"),
    ],
)
def test_models_without_a_plain_class_token_row_are_refused(model, options, reason):
    with pytest.raises(ConfigError, match=reason):
        build_vit(model, size=224, model_args=TINY | options)
