"""Finer features of a CNN: its last downsamplings removed, weights unchanged."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wsolpipe.contract.errors import ConfigError


def remove_last_strides(net: Any, count: int, *, size: int, what: str) -> None:
    """Give stride 1 to the layers of a timm CNN that make its last `count` downsamplings.

    Parameters
    ----------
    net : Module
        With timm's ``forward_features``; changed in place.
    count : int
        Downsamplings to remove; each doubles both sides of the features.
    size : int
        Side of the images, pixels.
    what : str
        How messages call the network.

    Raises
    ------
    ConfigError
        If the network has fewer downsamplings, or one is not a convolution or a pooling layer.
    """
    if not count:
        return
    layers, _ = _downsampling(net, size)
    sides = sorted({side for _, side in layers})
    if count > len(sides):
        msg = f"{what} has {len(sides)} downsamplings at size={size}, and {count} are to be removed"
        raise ConfigError(msg, hint=f"unstrided={len(sides)} or less")
    for layer, side in layers:
        if side not in sides[:count]:
            continue
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            layer.stride = (1, 1)
        elif isinstance(layer, nn.AvgPool2d):
            layer.kernel_size, layer.stride, layer.padding = 1, 1, 0
        else:
            msg = f"{what} downsamples by a {type(layer).__name__}, whose stride cannot be removed"
            raise ConfigError(msg, hint="unstrided=0, or another backbone, such as resnet50")
    _, after = _downsampling(net, size)
    if after.ndim != 4 or after.shape[-1] != sides[count - 1]:
        msg = (
            f"{what} gives features {list(after.shape)} without its last strides, expected a side of {sides[count - 1]}"
        )
        raise ConfigError(msg, hint="unstrided=0, or another backbone, such as resnet50")


@torch.no_grad()
def _downsampling(net: Any, size: int) -> tuple[list[tuple[nn.Module, int]], Tensor]:
    """Layers whose output is smaller than their input, each with the input's side, and the features."""
    found: list[tuple[nn.Module, int]] = []

    def note(layer: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        if isinstance(made, Tensor) and made.ndim == 4 and given[0].ndim == 4 and made.shape[-1] < given[0].shape[-1]:
            found.append((layer, given[0].shape[-1]))

    leaves = [layer for layer in net.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(note) for layer in leaves]
    training = net.training
    try:
        features: Tensor = net.eval().forward_features(torch.zeros(1, 3, size, size))
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return found, features
