"""Decoders: how they start."""

from __future__ import annotations

import pytest
import torch

from wsoltrain.networks.decoders import UNetDecoder


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
