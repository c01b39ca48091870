"""Parameters and multiply-accumulates of a method, for one image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Container

    from torch import Tensor

    from wsoltrain.methods.base import Method


def complexity(model: Method[Any], size: int) -> dict[str, Any]:
    """Count parameters and multiply-accumulates of a prediction: ``heads`` (all but what is fixed) and ``total``.

    Parameters
    ----------
    model : Method
        Parts that its `fixed` names are counted in the total alone.
    size : int
        Side of the image, pixels.
    """
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, 3, size, size, device=next(model.parameters()).device)
    training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        _Predict(model)(image)
    model.train(training)
    counts = {name: sum(kinds.values()) / 2 for name, kinds in counter.get_flop_counts().items()}
    modules = dict(model.named_modules())
    parts = [prefix.rstrip(".") for prefix in model.fixed if prefix.rstrip(".") in modules]  # the others are buffers
    fixed_macs = sum(counts.get(name, 0.0) for name in {_counted(part, counts) for part in parts})
    parameters = {name: value.numel() for name, value in model.named_parameters()}
    fixed = sum(count for name, count in parameters.items() if name.startswith(model.fixed))
    total = sum(parameters.values())
    macs = counter.get_total_flops() / 2
    return {
        "heads": {"parameters": total - fixed, "macs": macs - fixed_macs},
        "total": {"parameters": total, "macs": macs},
    }


class _Predict(nn.Module):
    """A prediction as a module call, so that parts are counted under their names in the method."""

    def __init__(self, model: Method[Any]) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.predict(image).maps


def _counted(part: str, counts: Container[str]) -> str:
    """Name under which a part was counted, or the nearest one that it is in."""
    root = f"{_Predict.__name__}.model"
    name = f"{root}.{part}"
    while name != root and name not in counts:
        name = name.rpartition(".")[0]
    return name
