"""NL-CCAM (Yang et al., WACV 2020): CAMs of all classes combined, those of unlikely classes subtracted.

The paper's network has non-local blocks: ``backbone: vgg16_nonlocal``. It is trained as CAM is. Its map is that
of an image, whatever the label: classes come in the order of their scores, as in the released code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field

from wsoltrain.methods.base import Prediction, class_of
from wsoltrain.methods.cam import Cam, CamKeys

if TYPE_CHECKING:
    from torch import Tensor

Combination = Literal["quadratic", "linear"]


class NlCcamKeys(CamKeys):
    """Keys of NL-CCAM."""

    combination: Combination = Field(
        "quadratic", description="Weights of the classes from likely to unlikely, 1 to -1 (section 3.2)"
    )
    label_first: bool = Field(
        False, description="Put an image's label before the likeliest classes; the released code knows no label"
    )


class NlCcam(Cam):
    """CAM whose map combines all classes."""

    Keys = NlCcamKeys
    keys: NlCcamKeys

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the combined map, and class logits."""
        features = self.net.forward_features(image)
        scores = self.scores(features)
        first = class_of(labels if self.keys.label_first else None, scores)
        weights = class_shares(scores, first, self.keys.combination) @ self.class_weights()
        return Prediction(torch.einsum("bc,bchw->bhw", weights, features), False, scores)


def class_shares(scores: Tensor, first: Tensor, combination: Combination) -> Tensor:
    """Weight of each class's map, [B, K]: by its rank in falling scores [B, K], the class `first` [B] before all."""
    ahead = scores.scatter(1, first[:, None], torch.inf)
    ranked = ahead.argsort(dim=1, descending=True, stable=True)
    by_rank = rank_weights(scores.shape[1], combination).to(scores)
    return torch.zeros_like(scores).scatter(1, ranked, by_rank.expand_as(scores))


def rank_weights(count: int, combination: Combination) -> Tensor:
    """Weights of ranks, float32 [count]: evenly from 1 to -1, or squares from 1 to 0 and then from 0 to -1."""
    if combination == "linear":
        return torch.linspace(1, -1, count)
    half = count // 2
    return torch.cat([torch.linspace(1, 0, half).square(), -torch.linspace(0, -1, count - half).square()])
