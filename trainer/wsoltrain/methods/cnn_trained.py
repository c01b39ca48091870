"""What CAM and methods like it share: a CNN trained on labels, finer features, faster last parts, published weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import Field

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.backbones import build_backbone
from wsoltrain.methods.base import Method, Phase, Task, Weighted
from wsoltrain.networks import localization_cnns
from wsoltrain.networks.backbone import BackboneKeys
from wsoltrain.networks.published import load_published
from wsoltrain.networks.strides import remove_last_strides

if TYPE_CHECKING:
    from torch import nn


class CnnKeys(BackboneKeys):
    """Keys of the CNN; ``backbone`` may also be vgg16_gap, vgg16_nonlocal or inception_v3_spg."""

    unstrided: int = Field(
        1,
        ge=0,
        description="Last downsamplings that are removed: 1 gives ResNet-50 maps of 14 x 14 at 224 pixels (standard "
        "evaluation), 2 of 28 x 28",
    )
    fast_lr: float = Field(
        10.0, gt=0, le=1e6, description="Factor on lr of the classifier's weights and of the parts in fast"
    )
    fast: tuple[str, ...] = Field(
        (), description="Beginnings of the names of further parts with that rate, such as layer4"
    )
    published: str | None = Field(
        None,
        description="Checkpoint of the whole trained network, class layer included, such as the standard evaluation's "
        ".pth.tar; epochs=0 scores it as it is",
    )


K = TypeVar("K", bound=CnnKeys)


class CnnTrained(Method[K]):
    """A method on a timm CNN, `net`, whose parts learn at two rates."""

    def __init__(self, keys: K, task: Task) -> None:
        super().__init__(keys, task)
        self.what = f"backbone={keys.backbone}"
        localization_cnns.register()
        self.net = build_backbone(keys.backbone, weights=keys.weights, model_args=keys.model_args)
        for part in keys.fast:
            if not any(name.startswith(part) for name, _ in self.net.named_parameters()):
                msg = f"fast={part}: {self.what} has no part of that name"
                raise ConfigError(msg, hint=f"parts: {', '.join(name for name, _ in self.net.named_children())}")

    def finish(self) -> None:
        """Remove strides and load published weights; called once the class layers are there."""
        keys = self.keys
        remove_last_strides(self.net, keys.unstrided, size=self.task.size, what=self.what)
        if keys.published is not None:
            load_published(self, keys.published)

    def class_layers(self) -> list[nn.Module]:
        """Parts that classify, which have no pretrained weights."""
        return [part for name, part in self.named_children() if name != "net"]

    def phases(self) -> list[Phase]:
        """Return one phase: the backbone, and the class layers with the backbone's faster parts."""
        fast_parts = [*self.class_layers(), *(p for name, p in self.net.named_modules() if self._is_fast(name))]
        quick = {id(each) for part in fast_parts for each in part.parameters()}
        slow: list[nn.Parameter] = []
        fast: list[nn.Parameter] = []
        for parameter in self.parameters():
            (fast if id(parameter) in quick else slow).append(parameter)
        return [Phase("train", [Weighted(slow), Weighted(fast, lr=self.keys.fast_lr)])]

    def _is_fast(self, name: str) -> bool:
        return bool(self.keys.fast) and name.startswith(self.keys.fast)
