"""F-CAM: a decoder on a frozen CAM classifier."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.classifier import WEIGHTS_FILE, parse_classifier
from wsoltrain.methods.base import ArtifactFile, Phase, Prediction, Reads, Task, Weighted
from wsoltrain.methods.pixel_trained import PixelTrained, PixelTrainedKeys
from wsoltrain.networks.encoders import Judge, UNetDecoder


class FCamKeys(PixelTrainedKeys):
    """Keys of F-CAM; ``classifier`` is its encoder."""


class FCam(PixelTrained[FCamKeys]):
    """F-CAM (Belharbi et al., WACV 2022): a U-Net decoder on a frozen CAM classifier, trained on any CAM maps.

    The decoder reads every level of the features, whatever their sizes. Class scores are the classifier's. Its file is
    kept in checkpoints, so that prediction needs no store.
    """

    fixed: ClassVar = ("encoder.",)
    gain: Tensor
    shift: Tensor

    def __init__(self, keys: FCamKeys, task: Task) -> None:
        super().__init__(keys, task)
        record, tensors = parse_classifier(task.artifacts[f"classifier/{WEIGHTS_FILE}"], "the stage classifier's file")
        self.encoder = Judge(record, tensors)
        if self.encoder.outputs < task.classes:
            msg = f"the classifier knows {self.encoder.outputs} classes, the data set has {task.classes}"
            raise ConfigError(msg, hint="wsolpipe run stage=classifier dataset=…, or classifier=FILE of this data set")
        own_mean, own_std, mean, std = (
            torch.tensor(each)[:, None, None] for each in (record.mean, record.std, task.mean, task.std)
        )  # the classifier's units from those of the images
        self.register_buffer("gain", std / own_std, persistent=False)
        self.register_buffer("shift", (mean - own_mean) / own_std, persistent=False)
        with torch.no_grad():
            levels, _ = self._features(torch.zeros(1, 3, task.size, task.size))
        sides = [level.shape[-1] for level in levels]
        if any(fine <= coarse for fine, coarse in pairwise(sides)):
            msg = f"the classifier {record.model} has features with sides of {sides} at size={task.size}"
            raise ConfigError(msg, hint="a U-Net needs levels that become smaller, as a CNN has them")
        self.decoder = UNetDecoder([level.shape[1] for level in levels], whole=sides[0] == task.size)

    @classmethod
    def reads(cls, keys: FCamKeys) -> Reads:
        """Return the pseudo-labels' stages and the classifier."""
        own = ArtifactFile("classifier", WEIGHTS_FILE, keys.classifier)
        return replace(super().reads(keys), artifacts=(own,))

    @torch.no_grad()
    def _features(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features of each level, fine to coarse, and class logits."""
        net: Any = self.encoder.net
        last, levels = net.forward_intermediates(image * self.gain + self.shift)
        return levels, net.forward_head(last)

    def phases(self) -> list[Phase]:
        """Return one phase, which trains the decoder; the classifier's batch normalisation stays as it is."""
        return [Phase("maps", [Weighted(list(self.decoder.parameters()))], frozen=[self.encoder])]

    def map_logits(self, image: Tensor) -> Tensor:
        """Logits of background and foreground, [B, 2, S, S]."""
        logits: Tensor = self.decoder(self._features(image)[0], image.shape[-2:])
        return logits

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the foreground map, which is that of any class, and the classifier's logits."""
        del labels
        levels, scores = self._features(image)
        return self.foreground(self.decoder(levels, image.shape[-2:]), scores)
