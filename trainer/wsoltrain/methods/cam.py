"""CAM (Zhou et al. 2016): a CNN trained to classify; the map of a class is the sum of its last features times weights.

``pool`` chooses how class maps become logits. The epoch is chosen by localization on validation, as of any method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wsolpipe.contract.errors import ConfigError
from wsoltrain.methods.base import Losses, Prediction, Task, class_of
from wsoltrain.methods.cnn_trained import CnnKeys, CnnTrained
from wsoltrain.networks.pooling import PoolKeys, pool_maps

if TYPE_CHECKING:
    from wsoltrain.methods.base import Batch


class CamKeys(CnnKeys, PoolKeys):
    """Keys of CAM."""


class Cam(CnnTrained[CamKeys]):
    """A CNN that pools its last features and classifies them by one linear layer."""

    Keys = CamKeys

    def __init__(self, keys: CamKeys, task: Task) -> None:
        super().__init__(keys, task)
        self.net.reset_classifier(task.classes * keys.maps_of_class)
        self._check_linear()
        self.finish()

    def _check_linear(self) -> None:
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
            msg = f"{self.what} does not classify pooled features [B, C, h, w] by one linear layer, so it has no CAM"
            raise ConfigError(msg, hint="backbone=resnet50, or another CNN with a linear head")

    def class_layers(self) -> list[nn.Module]:
        """Return the linear layer."""
        return [self.net.get_classifier()]

    def class_weights(self) -> Tensor:
        """Weights of each class's map, [K, C]; the mean of its maps where a class has several."""
        weight: Tensor = self.net.get_classifier().weight
        return weight.view(self.task.classes, -1, weight.shape[1]).mean(1)

    def scores(self, features: Tensor) -> Tensor:
        """Features [B, C, h, w] -> class logits [B, K]."""
        if self.keys.pool == "gap":
            logits: Tensor = self.net.forward_head(features)
            return logits
        maps = torch.einsum("kc,bchw->bkhw", self.class_weights(), features)
        bias: Tensor = self.net.get_classifier().bias
        return pool_maps(maps.float(), self.keys) + bias.view(self.task.classes, -1).mean(1)

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the cross-entropy of the classes."""
        del phase, epoch
        with self.task.autocast():
            scores = self.scores(self.net.forward_features(batch["image"]))
        self.task.lap("forward")
        return Losses({"classes": cross_entropy(scores.float(), batch["label"])})

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return each class's weights times the features, summed over channels, and class logits."""
        features = self.net.forward_features(image)
        scores = self.scores(features)
        weights = self.class_weights()[class_of(labels, scores)]
        return Prediction((weights[:, :, None, None] * features).sum(1), False, scores)
