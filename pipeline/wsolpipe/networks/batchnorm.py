"""BatchNorm kept as it is while a network is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


def freeze_batchnorm(net: nn.Module, *, what: str) -> None:
    """Keep statistics, weight and bias of every BatchNorm layer; call it again after each ``net.train()``.

    Weights whose BatchNorm was folded into the convolutions have neutral statistics: with those of a batch in their
    place the network would forget everything in one step.

    Raises
    ------
    ConfigError
        If the network has no such layer; `what` names it.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    layers = [part for part in net.modules() if isinstance(part, _BatchNorm)]
    if not layers:
        msg = f"{what} has no BatchNorm layer to freeze"
        raise ConfigError(msg, hint="frozen_bn=false")
    for layer in layers:
        layer.eval().requires_grad_(requires_grad=False)
