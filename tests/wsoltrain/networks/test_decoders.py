"""Decoders: how they start."""

from __future__ import annotations

import pytest
import torch

from wsoltrain.networks.encoders import UNetDecoder
from wsoltrain.papers.bare import build_bare
from wsoltrain.training.recipe_file import load_recipe


def test_unet_starts_with_the_spread_of_the_released_network():
    torch.manual_seed(0)
    decoder = UNetDecoder([64, 256, 512])
    convolutions = [layer for layer in decoder.stages.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolutions) == 6
    for layer in convolutions:
        fan_in = layer.in_channels * 9
        assert float(layer.weight.detach().var()) == pytest.approx(2 / fan_in, rel=0.06)
        assert float(layer.weight.detach().abs().max()) <= (6 / fan_in) ** 0.5
    fans = 9 * (decoder.head.in_channels + decoder.head.out_channels)
    assert float(decoder.head.weight.detach().var()) == pytest.approx(2 / fans, rel=0.2)
    assert not decoder.head.bias.any()


@pytest.mark.parametrize("sides", [(32, 16, 8), (16, 8, 4), (13, 5, 2)])
def test_unet_ends_at_the_size_of_the_image_whatever_the_sizes_of_its_levels(sides):
    """A first level at stride 1 (VGG16), halves, and odd sizes (InceptionV3)."""
    decoder = UNetDecoder([4, 8, 8], whole=sides[0] == 32).eval()
    levels = [torch.randn(2, channels, side, side) for channels, side in zip((4, 8, 8), sides, strict=True)]
    assert decoder(levels, (32, 32)).shape == (2, 2, 32, 32)
    if sides[0] == 16:
        assert torch.equal(decoder(levels, (32, 32)), decoder(levels))


@pytest.mark.parametrize("model", ["vgg16", "inception_v3"])
def test_fcam_and_dips_of_the_workshop_run_on_the_backbones_of_the_papers(model):
    image = torch.randn(1, 3, 96, 96)
    own = load_recipe("fcam", dataset="cub", changes={"size": 96})
    fcam = build_bare(own, 5, "cpu", classifier=model)
    workshop = load_recipe("dips_workshop", dataset="cub", changes={"backbone": model, "weights": None, "size": 96})
    with torch.no_grad():
        found = fcam.predict(image), build_bare(workshop, 5, "cpu").predict(image)
    assert [tuple(each.maps.shape) for each in found] == [(1, 96, 96)] * 2
    assert found[0].scores.shape == (1, 5)
