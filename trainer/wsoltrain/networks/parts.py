"""Parts of a network by name, as keys of recipes give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown

if TYPE_CHECKING:
    from torch import nn


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
