"""The network that a method is built on: its keys, its parts by name, and finer features of a CNN."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown
from wsolpipe.networks.sources import resolve
from wsolpipe.networks.weights import load_state
from wsoltrain.data.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Hook = Callable[[nn.Module, tuple[Any, ...], Any], Any]  # part, what it was given, what it made


class BackboneKeys(Keys):
    """Keys of the network that a method is built on."""

    backbone: str = Field(description="timm name of the network")
    model_args: dict[str, Any] = Field(
        {}, description="Further arguments of the timm network, such as model_args.patch_size"
    )
    weights: str | None = Field(
        "timm",
        description="Weights file; data:FILE for one of wsolpipe's data folder; timm: pretrained weights; null: random",
    )


def load_classifier(net: Any, keys: BackboneKeys) -> None:
    """Give a network that was built without classifier that of its weights file.

    Raises
    ------
    ConfigError
        If the file has none, or one of another number of classes.
    """
    source, layer = resolve(str(keys.weights), model=keys.backbone), net.get_classifier()
    state = {} if source is None or source.path is None else load_state(source)
    (name,) = [name for name, part in net.named_modules() if part is layer]
    found = {key: state.get(f"{name}.{key}") for key in layer.state_dict()}
    shapes = {key: None if value is None else value.shape for key, value in found.items()}
    if shapes != {key: value.shape for key, value in layer.state_dict().items()}:
        given = shapes.get("weight")
        kept = "no classifier" if given is None else f"a classifier of {given[0]} classes"
        msg = f"keep_classifier=true: weights={keys.weights} holds {kept}, the data set has {net.num_classes}"
        raise ConfigError(msg, hint="keep_classifier=false, for a classifier that begins anew")
    layer.load_state_dict(found)


def find_part(net: nn.Module, name: str, *, key: str) -> nn.Module:
    """Return a part of a network.

    Parameters
    ----------
    name : str
        Such as ``layer3.0``.
    key : str
        Key of the recipe that names it, for the message.

    Raises
    ------
    ConfigError
        If the network has no such part; names the nearest.
    """
    parts = dict(net.named_modules())
    if name not in parts or not name:
        blocks = [known for known in parts if known and known.count(".") <= 1]
        raise ConfigError(unknown("part of the network", name, blocks), hint=f"{key}= names parts of backbone=")
    part: nn.Module = parts[name]
    return part


@contextmanager
def hooked(hooks: Iterable[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """Call a function after each of some parts while the block runs; what it returns, if anything, goes on instead.

    timm's ``forward_intermediates`` gives the features of whole stages only; parts may lie within one.
    """
    handles = [part.register_forward_hook(hook) for part, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def remove_last_strides(net: Any, count: int, *, size: int, what: str) -> None:
    """Give stride 1 to the layers of a timm CNN that make its last `count` downsamplings; weights do not change.

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
    hint = "unstrided=0, or another backbone, such as resnet50"
    for layer, side in layers:
        if side not in sides[:count]:
            continue
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            layer.stride = (1, 1)
        elif isinstance(layer, nn.AvgPool2d):
            layer.kernel_size, layer.stride, layer.padding = 1, 1, 0
        else:
            msg = f"{what} downsamples by a {type(layer).__name__}, whose stride cannot be removed"
            raise ConfigError(msg, hint=hint)
    shape, side = list(_downsampling(net, size)[1].shape), sides[count - 1]
    if len(shape) != 4 or shape[-1] != side:
        msg = f"{what} gives features {shape} without its last strides, expected a side of {side}"
        raise ConfigError(msg, hint=hint)


@torch.no_grad()
def _downsampling(net: Any, size: int) -> tuple[list[tuple[nn.Module, int]], Tensor]:
    """Layers whose output is smaller than their input, each with the input's side, and the features."""
    found: list[tuple[nn.Module, int]] = []

    def note(layer: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        if isinstance(made, Tensor) and made.ndim == 4 and given[0].ndim == 4 and made.shape[-1] < given[0].shape[-1]:
            found.append((layer, given[0].shape[-1]))

    training = net.training
    with hooked((layer, note) for layer in net.modules() if not list(layer.children())):
        features: Tensor = net.eval().forward_features(torch.zeros(1, 3, size, size))
    net.train(training)
    return found, features
