"""Networks: sizes as published, what is frozen, and that weights which do not fit are refused."""

from __future__ import annotations

import pytest
import torch

from trained import build
from wsolpipe.contract.errors import ConfigError, WeightsError
from wsoltrain.inference.model import complexity

VIT = "vit_tiny_patch16_224"
PUBLISHED = {"parameters": 1.616e6, "macs": 2.396e9}
"""Thesis, ch. 2, complexity of DiPS's heads on ViT-S with 200 classes."""


def map_logits(model, image):
    if hasattr(model, "features"):
        return model.decoder(model.features(model.encoder(image)))
    return model.decoder(model.encoder(image))


def test_dips_heads_have_the_published_parameters_and_operations():
    counted = complexity(build("dips", "vit_small_patch16_224", weights=None, size=224, classes=200), 224)["heads"]
    assert counted["parameters"] == pytest.approx(PUBLISHED["parameters"], rel=0.002)
    assert counted["macs"] == pytest.approx(PUBLISHED["macs"], rel=0.01)


@pytest.mark.parametrize(("kind", "channels"), [("dips", 192), ("trcam", 384), ("trcam_attention", 3 * 17)])
def test_token_networks_give_full_size_maps_and_classes(kind, channels):
    model = build(kind, VIT, weights=None, size=64, classes=7)
    assert model.decoder.blocks[0][0][0].in_channels == channels
    logits = map_logits(model, torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 2, 64, 64)
    assert (logits >= 0).all()
    prediction = model.eval().predict(torch.randn(2, 3, 64, 64))
    assert prediction.maps.shape == (2, 64, 64)
    assert prediction.unit
    assert prediction.scores.shape == (2, 7)


def test_patches_of_eight_are_doubled_three_times():
    args = {"patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 4, "qk_norm": True}
    model = build("dips", VIT, weights=None, size=48, classes=2, model_args=args)
    assert len(model.decoder.blocks) == 3
    assert map_logits(model, torch.randn(2, 3, 48, 48)).shape == (2, 2, 48, 48)


def test_attention_channels_are_the_last_blocks_softmax():
    model = build("trcam_attention", VIT, weights=None, size=64, classes=2)
    seen = {}
    block = model.encoder.vit.blocks[-1].attn
    block.fused_attn = False
    block.attn_drop.register_forward_hook(lambda module, given, made: seen.update(weights=made))
    attention = model.encoder(torch.randn(1, 3, 64, 64)).attention
    torch.testing.assert_close(attention, seen["weights"][..., 1:].reshape(1, 51, 4, 4))


def test_encoder_is_frozen_and_saved_weights_leave_it_out():
    model = build("dips", VIT, weights=None, size=64, classes=3).train()
    assert not model.encoder.vit.training
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    prediction = model.predict(torch.randn(2, 3, 64, 64))
    (prediction.maps.square().mean() + prediction.scores.square().mean()).backward()
    optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    saved = model.saved()
    assert not any(name.startswith("encoder") for name in saved)
    other = build("dips", VIT, weights=None, size=64, classes=3)
    other.restore(saved)
    assert torch.equal(other.head.weight, model.head.weight)
    with pytest.raises(ConfigError, match="another network"):
        build("dips", VIT, weights=None, size=64, classes=4).restore(saved)


def test_unet_gives_full_size_maps_and_trains_its_encoder():
    model = build("dips_workshop", "resnet18", weights=None, size=64, classes=3)
    logits = map_logits(model, torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 2, 64, 64)
    logits.square().mean().backward()
    assert next(model.encoder.parameters()).grad is not None


def test_unet_of_fewer_levels_sees_only_what_is_near():
    torch.manual_seed(0)
    args = {"channels": [8, 8, 8, 8], "stem_width": 8, "out_indices": [0, 1]}
    model = build("dips_workshop", "resnet10t", weights=None, size=64, classes=3, model_args=args).eval()
    image = torch.randn(1, 3, 64, 64, requires_grad=True)
    map_logits(model, image)[0, 1, 32, 32].backward()
    seen = image.grad.abs().sum((0, 1))
    assert seen[28:36, 28:36].sum() > 0
    assert seen[:4].sum() == seen[-4:].sum() == 0


@pytest.mark.parametrize("kind", ["dips", "dips_workshop"])
def test_temperature_sharpens_predictions(kind):
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    backbone = VIT if kind == "dips" else "resnet18"
    model = build(kind, backbone, weights=None, size=64, classes=3, temperature=10.0).eval()
    torch.testing.assert_close(model.predict(image).maps, (10 * map_logits(model, image)).softmax(1)[:, 1])


def test_weights_of_the_demo_are_found_by_name():
    args = {"channels": [32, 48, 96, 160], "stem_width": 16, "out_indices": [0, 1]}
    weights = "data:demo/weights/demo_cnn.safetensors"
    model = build("dips_workshop", "resnet10t", weights=weights, size=64, classes=8, model_args=args)
    assert sum(p.numel() for p in model.parameters()) < 100_000
    with pytest.raises(WeightsError, match="no weights file"):
        build("dips_workshop", "resnet10t", weights="data:demo/none.safetensors", size=64, classes=8, model_args=args)


def test_real_weights_fit(shared):
    file = shared / "weights/vit_tiny_patch16_224_in1k.safetensors"
    model = build("dips", VIT, weights=str(file), size=224, classes=5)
    tokens = model.encoder(torch.zeros(1, 3, 224, 224))
    assert tokens.patches.shape == (1, 192, 14, 14)
    assert tokens.classes.shape == (1, 768)


def test_weights_of_another_image_size_are_resampled(tmp_path):
    from safetensors.torch import save_file

    large = build("dips", VIT, weights=None, size=64, classes=2).encoder.vit
    save_file(large.state_dict(), tmp_path / "large.safetensors")
    small = build("dips", VIT, weights=str(tmp_path / "large.safetensors"), size=32, classes=2).encoder.vit
    assert small.pos_embed.shape == (1, 5, 192)
    assert torch.equal(small.pos_embed[:, 0], large.pos_embed[:, 0])
    assert torch.equal(small.blocks[3].attn.qkv.weight, large.blocks[3].attn.qkv.weight)


def test_wrong_names_and_weights_are_refused(shared):
    with pytest.raises(ConfigError, match="dips"):
        build("dipps", VIT, weights=None, size=64, classes=2)
    with pytest.raises(ConfigError, match="unknown timm model"):
        build("dips", "vit_teeny", weights=None, size=64, classes=2)
    with pytest.raises(ConfigError, match="not a vision transformer with one class token"):
        build("dips", "deit_tiny_distilled_patch16_224", weights=None, size=224, classes=2)
    with pytest.raises(WeightsError, match="no weights file"):
        build("dips", VIT, weights="nowhere.safetensors", size=64, classes=2)
    other = shared / "weights/mobilenetv2_100_tf_in1k.safetensors"
    with pytest.raises(WeightsError, match="do not fit"):
        build("dips", VIT, weights=str(other), size=224, classes=2)
