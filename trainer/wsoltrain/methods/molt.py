"""MOLT (multiscale object localization transformer, without its refinement): TS-CAM at several sizes of the image.

"Multiscale vision transformer with deep clustering-guided refinement for weakly supervised object localization".

The image is decoded once, at the recipe's size, and each level sees it resized to its own; with patches of one size, a
larger level has a finer grid. Losses are averaged over levels, and so are class probabilities; maps are those of
TS-CAM, brought to the finest grid, scaled between their own lowest and highest value, and combined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.vit import require_tiling
from wsoltrain.data.views import scaled_to_unit
from wsoltrain.methods.base import Losses, Method, Phase, Prediction, Task, map_of_class
from wsoltrain.methods.ts_cam import SPARED, decayed
from wsoltrain.networks.backbone import BackboneKeys
from wsoltrain.networks.token_maps import build_token_network, read_token_maps

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from wsoltrain.methods.base import Batch

COMBINE: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(0),
    "max": lambda maps: maps.amax(0),
    "product": lambda maps: maps.prod(0),
}
"""``combine`` -> what makes one map [B, h, w] of those of all levels, [L, B, h, w] in 0..1."""


class MoltKeys(BackboneKeys):
    """Keys of MOLT."""

    sizes: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = Field(
        (224, 336, 448),
        min_length=1,
        description="Side of the image at each level, pixels, at most size; one, two or three levels (the paper leaves "
        "the numbers out)",
    )
    shared: bool = Field(False, description="One transformer for all levels instead of one for each (paper)")
    combine: Literal["mean", "max", "product"] = Field(
        "mean", description="How the levels' scaled maps become one: mean (paper), max or product"
    )

    def check(self) -> None:
        """Refuse sizes that repeat or shrink."""
        super().check()
        if list(self.sizes) != sorted(set(self.sizes)):
            msg = f"sizes={list(self.sizes)}: each level must be larger than the one before"
            raise ConfigError(msg, hint="sizes=[224,336,448]")


class Molt(Method[MoltKeys]):
    """A TS-CAM transformer for each size of the image, or one for all."""

    Keys = MoltKeys

    def __init__(self, keys: MoltKeys, task: Task) -> None:
        super().__init__(keys, task)
        if keys.sizes[-1] > task.size:
            msg = f"sizes={list(keys.sizes)} reaches beyond size={task.size}, at which images are decoded"
            raise ConfigError(msg, hint=f"size={keys.sizes[-1]}, or smaller sizes")
        fixed: dict[str, Any] = {"dynamic_img_size": True} if keys.shared else {}
        self.nets = nn.ModuleList(
            build_token_network(keys, size=size, classes=task.classes, size_key="sizes", **fixed)
            for size in (keys.sizes[:1] if keys.shared else keys.sizes)
        )
        for size in keys.sizes:
            require_tiling(self.nets[0], f"backbone={keys.backbone}", size, key="sizes")

    def phases(self) -> list[Phase]:
        """Return one phase that trains all levels, as TS-CAM is."""
        return [Phase("train", decayed(*self.nets, spared=SPARED))]

    def levels(self, image: Tensor) -> list[tuple[nn.Module, Tensor]]:
        """Each level's network and its image."""
        nets = [self.nets[0]] * len(self.keys.sizes) if self.keys.shared else list(self.nets)
        return [
            (net, image if size == image.shape[-1] else _resized(image, size))
            for net, size in zip(nets, self.keys.sizes, strict=True)
        ]

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the mean of the levels' cross-entropies of the classes."""
        del phase, epoch
        with self.task.autocast():
            scores = [read_token_maps(net, seen, attention=False).scores for net, seen in self.levels(batch["image"])]
        self.task.lap("forward")
        levels = torch.stack([cross_entropy(each.float(), batch["label"]) for each in scores])
        return Losses({"classes": levels.mean()})

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the levels' maps as one at the finest grid, and the logarithm of the mean class probabilities."""
        levels = [read_token_maps(net, seen, attention=True) for net, seen in self.levels(image)]
        likelihood = torch.stack([level.scores.float().softmax(1) for level in levels]).mean(0)
        scores = likelihood.clamp_min(torch.finfo(likelihood.dtype).tiny).log()
        finest, maps = levels[-1].classes.shape[2:], []
        for level in levels:
            assert level.attention is not None  # noqa: S101 - asked for
            own = (map_of_class(level.classes, labels, scores) * level.attention)[:, None]
            maps.append(scaled_to_unit(interpolate(own, finest, mode="bilinear", align_corners=False)[:, 0]))
        return Prediction(COMBINE[self.keys.combine](torch.stack(maps)), False, scores)


def _resized(image: Tensor, size: int) -> Tensor:
    return interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=True)
