"""CAM (Zhou et al. 2016): a CNN trained to classify; the map of a class is the sum of its last features times weights.

The epoch is chosen by localization on validation, as of any method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.backbones import build_backbone
from wsoltrain.methods.base import Losses, Method, Phase, Prediction, Task, Weighted, class_of
from wsoltrain.networks.backbone import BackboneKeys
from wsoltrain.networks.strides import remove_last_strides

if TYPE_CHECKING:
    from wsoltrain.methods.base import Batch


class CamKeys(BackboneKeys):
    """Keys of CAM."""

    unstrided: int = Field(
        1,
        ge=0,
        description="Last downsamplings that are removed: 1 gives ResNet-50 maps of 14 x 14 at 224 pixels (standard "
        "evaluation), 2 of 28 x 28",
    )
    fast_lr: float = Field(10.0, gt=0, description="Factor on lr of the classifier's weights and of the parts in fast")
    fast: tuple[str, ...] = Field(
        (), description="Beginnings of the names of further parts with that rate, such as layer4"
    )


class Cam(Method[CamKeys]):
    """A timm CNN that pools its last features and classifies them by one linear layer."""

    Keys = CamKeys

    def __init__(self, keys: CamKeys, task: Task) -> None:
        super().__init__(keys, task)
        what = f"backbone={keys.backbone}"
        self.net = build_backbone(keys.backbone, weights=keys.weights, model_args=keys.model_args)
        self.net.reset_classifier(task.classes)
        self._check_linear(what)
        remove_last_strides(self.net, keys.unstrided, size=task.size, what=what)
        for part in keys.fast:
            if not any(name.startswith(part) for name, _ in self.net.named_parameters()):
                msg = f"fast={part}: {what} has no part of that name"
                raise ConfigError(msg, hint=f"parts: {', '.join(name for name, _ in self.net.named_children())}")

    def _check_linear(self, what: str) -> None:
        """Refuse a network whose logits are not a linear function of its pooled features."""
        linear, training = self.net.get_classifier(), self.net.training
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            features = self.net.eval().forward_features(torch.zeros(1, 3, self.task.size, self.task.size))
            fits = isinstance(linear, nn.Linear) and features.ndim == 4 and features.shape[1] == linear.in_features
            if fits:
                features = torch.rand(2, *features.shape[1:])
                fits = torch.allclose(self.net.forward_head(features), linear(features.mean((2, 3))), atol=1e-4)
        self.net.train(training)
        if not fits:
            msg = f"{what} does not classify pooled features [B, C, h, w] by one linear layer, so it has no CAM"
            raise ConfigError(msg, hint="backbone=resnet50, or another CNN with a linear head")

    def phases(self) -> list[Phase]:
        """Return one phase: the backbone, and the classifier with its faster parts."""
        prefixes = (
            *self.keys.fast,
            *(name for name, part in self.net.named_modules() if part is self.net.get_classifier()),
        )
        slow: list[nn.Parameter] = []
        fast: list[nn.Parameter] = []
        for name, parameter in self.net.named_parameters():
            (fast if name.startswith(prefixes) else slow).append(parameter)
        return [Phase("train", [Weighted(slow), Weighted(fast, lr=self.keys.fast_lr)])]

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the cross-entropy of the classes."""
        del phase, epoch
        with self.task.autocast():
            scores = self.net(batch["image"])
        self.task.lap("forward")
        return Losses({"classes": cross_entropy(scores.float(), batch["label"])})

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return each class's weights times the features, summed over channels, and class logits."""
        features = self.net.forward_features(image)
        scores = self.net.forward_head(features)
        weights = self.net.get_classifier().weight[class_of(labels, scores)]
        return Prediction((weights[:, :, None, None] * features).sum(1), False, scores)
