"""DiPS, workshop version: a U-Net on the image, all of it trained; it does not classify.

Murtaza et al., "Discriminative sampling of proposals in self-supervised transformers", WACV workshops 2023; thesis,
appendix I.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.backbones import build_backbone
from wsoltrain.methods.base import Phase, Prediction, Task, Weighted
from wsoltrain.methods.pixel_trained import PixelTrained, PixelTrainedKeys
from wsoltrain.networks.backbone import BackboneKeys
from wsoltrain.networks.decoders import UNetDecoder

if TYPE_CHECKING:
    from torch import Tensor


class DipsWorkshopKeys(BackboneKeys, PixelTrainedKeys):
    """Keys of the workshop's DiPS."""

    head_epochs: Literal[0] = Field(0, description="Always 0: there is no class head")


class DipsWorkshop(PixelTrained[DipsWorkshopKeys]):
    """A U-Net on a timm network of levels at strides 1 or 2, 4, 8, …

    ``model_args.out_indices=[0, 1]`` keeps the first two levels: such a network sees less around a pixel, and so learns
    less of what is wrong around objects in pseudo-labels.
    """

    Keys = DipsWorkshopKeys

    def __init__(self, keys: DipsWorkshopKeys, task: Task) -> None:
        super().__init__(keys, task)
        self.encoder = build_backbone(
            keys.backbone, weights=keys.weights, model_args=keys.model_args, features_only=True
        )
        reductions = self.encoder.feature_info.reduction()
        if reductions[0] > 2 or any(fine >= coarse for fine, coarse in pairwise(reductions)):
            msg = f"backbone={keys.backbone} has levels at strides {reductions}, a U-Net needs 1 or 2, then larger ones"
            raise ConfigError(msg, hint="backbone=resnet50, and out_indices from 0 on")
        self.decoder = UNetDecoder(self.encoder.feature_info.channels(), whole=reductions[0] == 1)

    def phases(self) -> list[Phase]:
        """Return one phase, which trains the whole network."""
        return [Phase("maps", [Weighted(list(self.parameters()))])]

    def map_logits(self, image: Tensor) -> Tensor:
        """Logits of background and foreground, [B, 2, S, S]."""
        logits: Tensor = self.decoder(self.encoder(image), image.shape[-2:])
        return logits

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the foreground map, which is that of any class; no class scores."""
        del labels
        return self.foreground(self.map_logits(image), None)
