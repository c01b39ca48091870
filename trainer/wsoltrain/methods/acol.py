"""ACoL, adversarial complementary learning (Zhang et al., CVPR 2018): a second branch, blind where the first one looks.

Both branches are convolutions that end in one map a class, and classify by its mean. Features are erased for the second
one where the first one's map of the label is high. The map is the larger of both branches' maps, each in 0..1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wsoltrain.data.views import scaled_to_unit
from wsoltrain.methods.base import Losses, Prediction, Task, class_of, map_of_class
from wsoltrain.methods.cam import CnnKeys, CnnTrained
from wsoltrain.networks.localization_cnns import Drawn, draw_weights

if TYPE_CHECKING:
    from wsoltrain.methods.base import Batch


class AcolKeys(CnnKeys):
    """Keys of ACoL."""

    erase_from: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Value of the first branch's map, in 0..1, from which features are erased (section 3.3); 0.7 in "
        "the standard evaluation, 0.1 in the thesis, chapter 4",
    )
    branch_width: int = Field(1024, ge=1, le=16384, description="Channels of both branches")
    start: Drawn = Field(
        "he", description="First weights of the branches: he on ResNets, xavier on VGG16 and InceptionV3 (as released)"
    )


class Acol(CnnTrained[AcolKeys]):
    """A CNN with two branches."""

    Keys = AcolKeys

    def __init__(self, keys: AcolKeys, task: Task) -> None:
        super().__init__(keys, task)
        self.classifier_A, self.classifier_B = (
            _branch(self.net.num_features, keys.branch_width, task.classes) for _ in range(2)
        )
        for branch in (self.classifier_A, self.classifier_B):
            draw_weights(branch, keys.start)
        self.finish()

    def maps(self, image: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Class maps [B, K, h, w] of both branches, and the classes [B] by whose maps was erased."""
        features = self.net.forward_features(image)
        first = self.classifier_A(features)
        scores = first.mean((2, 3))
        classes = class_of(labels, scores)
        second = self.classifier_B(erase(features, map_of_class(first, classes, scores), self.keys.erase_from))
        return first, second, classes

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the cross-entropy of each branch."""
        del phase, epoch
        with self.task.autocast():
            first, second, _ = self.maps(batch["image"], batch["label"])
        self.task.lap("forward")
        scores = {"classes": first, "erased": second}
        return Losses({name: cross_entropy(maps.float().mean((2, 3)), batch["label"]) for name, maps in scores.items()})

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the larger of both maps of the class, each in 0..1, and the first branch's logits."""
        first, second, classes = self.maps(image, labels)
        scores = first.mean((2, 3))
        own, erased = (scaled_to_unit(map_of_class(maps, classes, scores).float()) for maps in (first, second))
        return Prediction(torch.maximum(own, erased), False, scores)


def _branch(channels: int, width: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, classes, 1),
    )  # fmt: skip


def erase(features: Tensor, maps: Tensor, threshold: float) -> Tensor:
    """Features [B, C, h, w], 0 where the map [B, h, w], scaled to 0..1, is not below a threshold."""
    return features * (scaled_to_unit(maps.detach().float()) < threshold)[:, None]
