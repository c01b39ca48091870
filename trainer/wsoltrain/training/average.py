"""A running average of a network's weights, evaluated and kept instead of them where a recipe has ``ema``."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from wsoltrain.methods.base import Method


class Average:
    """Exponential moving average of what a network saves; batch statistics and counters are copied.

    Parameters
    ----------
    model : Method
        Its current weights are the first average.
    decay : float
        Share of the average that stays in a step; less in the first steps, ``(1 + step) / (10 + step)``, so that the
        beginning is forgotten.
    """

    def __init__(self, model: Method[Any], decay: float) -> None:
        self.decay = decay
        self.learned = {name for name, _ in model.named_parameters()}
        self.tensors = {name: value.detach().clone() for name, value in model.saved().items()}

    @torch.no_grad()
    def update(self, model: Method[Any], step: int) -> None:
        """Average in the weights after a step."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in model.saved().items():
            if name in self.learned:
                self.tensors[name].lerp_(value, share)
            else:
                self.tensors[name].copy_(value)

    def take(self, tensors: dict[str, Tensor]) -> None:
        """Restore an average that was saved."""
        for name, value in tensors.items():
            self.tensors[name].copy_(value)

    @contextmanager
    def within(self, model: Method[Any]) -> Iterator[None]:
        """Give the network the averaged weights for as long as the block runs."""
        own = {name: value.detach().clone() for name, value in model.saved().items()}
        model.restore(self.tensors)
        try:
            yield
        finally:
            model.restore(own)
