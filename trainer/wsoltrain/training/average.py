"""A running average of a network's weights, which is evaluated and kept instead of them where a recipe asks for it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from wsoltrain.methods.base import Method


class Average:
    """Exponential moving average of what a network saves; statistics of batches and counters are taken as they are.

    Parameters
    ----------
    model : Method
        Whose weights, as they are now, the average begins with.
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
        """Take in the weights after a step."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in model.saved().items():
            if name in self.learned:
                self.tensors[name].lerp_(value, share)
            else:
                self.tensors[name].copy_(value)

    def take(self, tensors: dict[str, Tensor]) -> None:
        """Go on with an average that was saved."""
        for name, value in tensors.items():
            self.tensors[name].copy_(value)

    @contextmanager
    def within(self, model: Method[Any]) -> Iterator[None]:
        """Lend the average to the network."""
        own = {name: value.detach().clone() for name, value in model.saved().items()}
        model.restore(self.tensors)
        try:
            yield
        finally:
            model.restore(own)
