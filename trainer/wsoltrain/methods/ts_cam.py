"""TS-CAM (Gao et al., "Token semantic coupled attention map", ICCV 2021): attention of the class token x class map.

Patch tokens are classified by a convolution, and their mean scores are trained. The map of a class is its score map
times the class token's attention to each patch, averaged over heads and summed over all blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from torch.nn.functional import cross_entropy

from wsoltrain.methods.base import Losses, Method, Phase, Prediction, Task, Weighted, map_of_class
from wsoltrain.networks.backbone import BackboneKeys
from wsoltrain.networks.token_maps import build_token_network, read_token_maps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from wsoltrain.methods.base import Batch

K = TypeVar("K", bound=BackboneKeys)
SPARED = ("pos_embed", "cls_token")
"""Parameters without weight decay beside biases and vectors (``no_weight_decay`` of the released networks)."""


def decayed(*nets: nn.Module, spared: Sequence[str] = ()) -> list[Weighted]:
    """All parameters of networks, weight decay on matrices alone: not on biases, vectors and the names in `spared`."""
    from timm.optim import param_groups_weight_decay

    found = [each for net in nets for each in param_groups_weight_decay(net, 1.0, no_weight_decay_list=spared)]
    shares = {
        share: [each for group in found if group["weight_decay"] == share for each in group["params"]]
        for share in (1.0, 0.0)
    }
    return [Weighted(parameters, weight_decay=share) for share, parameters in shares.items()]


class TokenMethod(Method[K]):
    """A vision transformer trained by the mean class scores of its patch tokens."""

    def __init__(self, keys: K, task: Task) -> None:
        super().__init__(keys, task)
        self.net = build_token_network(keys, size=task.size, classes=task.classes, add=self.add_parts)

    def add_parts(self, net: object) -> None:
        """Give the network parts that the published checkpoints hold beside those of TS-CAM; none by default."""

    def phases(self) -> list[Phase]:
        """Return one phase; biases, vectors, position embeddings and the class token are not decayed."""
        return [Phase("train", decayed(self.net, spared=SPARED))]

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the cross-entropy of the classes."""
        del phase, epoch
        with self.task.autocast():
            scores = self.train_scores(batch["image"])
        self.task.lap("forward")
        return Losses({"classes": cross_entropy(scores.float(), batch["label"])})

    def train_scores(self, image: Tensor) -> Tensor:
        """Class logits [B, C] of normalised images [B, 3, S, S] in training."""
        return read_token_maps(self.net, image, attention=False).scores


class TsCam(TokenMethod[BackboneKeys]):
    """TS-CAM as published."""

    Keys = BackboneKeys

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the class's score map times attention, and class logits."""
        maps = read_token_maps(self.net, image, attention=True)
        assert maps.attention is not None  # noqa: S101 - asked for
        scores = maps.scores
        return Prediction(map_of_class(maps.classes, labels, scores) * maps.attention, False, scores)
