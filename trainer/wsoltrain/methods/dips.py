"""DiPS, journal version: a frozen transformer, a class head, and a decoder of its patch tokens.

Murtaza et al., "DiPS: discriminative pseudo-label sampling with self-supervised transformers", Image and Vision
Computing 2023; thesis, chapter 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wsolpipe.contract.errors import ConfigError
from wsoltrain.methods.base import Losses, Phase, Prediction, Task, Weighted
from wsoltrain.methods.pixel_trained import PixelTrained, PixelTrainedKeys
from wsoltrain.networks.backbone import BackboneKeys
from wsoltrain.networks.decoders import TokenDecoder
from wsoltrain.networks.frozen import LAST, FrozenVit

if TYPE_CHECKING:
    from wsolpipe.networks.vit import Tokens
    from wsoltrain.methods.base import Batch


class DipsKeys(BackboneKeys, PixelTrainedKeys):
    """Keys of DiPS and TrCAM-V."""

    head_epochs: int = Field(
        10, ge=0, le=10**6, description="Epochs in which the class head is trained, before the maps"
    )
    head_lr: float = Field(0.1, gt=0, le=1e30, description="Learning rate of the class head, constant")


class Dips(PixelTrained[DipsKeys]):
    """DiPS: the decoder reads patch tokens; the class head reads the class tokens of the last four blocks.

    Patches have a side of a power of two, and the decoder one block for each doubling up to the image's size.
    """

    Keys = DipsKeys
    fixed: ClassVar = ("encoder.vit.",)
    wants_attention: ClassVar[bool] = False

    def __init__(self, keys: DipsKeys, task: Task) -> None:
        super().__init__(keys, task)
        self.began = keys.head_epochs
        self.encoder = FrozenVit(
            keys.backbone, weights=keys.weights, size=task.size, model_args=keys.model_args,
            attention=self.wants_attention,
        )  # fmt: skip
        width, patch = self.encoder.width, self.encoder.patch
        doublings = patch.bit_length() - 1
        if patch != 1 << doublings or task.size % patch:
            msg = f"patches of {patch} pixels cannot be doubled up to size={task.size}"
            raise ConfigError(msg, hint="a backbone of patch 8 or 16, and a size that is a multiple of it")
        widths = (*(width >> number for number in range(1, doublings)), 2)
        self.decoder = TokenDecoder(self.channels(), widths)
        self.head = nn.Linear(LAST * width, task.classes)
        nn.init.normal_(self.head.weight, 0, 0.01)
        nn.init.zeros_(self.head.bias)

    def channels(self) -> int:
        """Number of channels that `features` has."""
        return self.encoder.width

    def features(self, tokens: Tokens) -> Tensor:
        """Return the features that the decoder reads, [B, channels, h, w]."""
        return tokens.patches

    def phases(self) -> list[Phase]:
        """Return the class head's phase, where it has epochs, and the maps'."""
        keys = self.keys
        head = Phase("head", [Weighted(list(self.head.parameters()))], keys.head_epochs, keys.head_lr, scored=False)
        return [*([head] if keys.head_epochs else []), Phase("maps", [Weighted(list(self.decoder.parameters()))])]

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the cross-entropy of the class head, or the losses of the maps."""
        if phase == "head":
            with self.task.autocast():
                scores = self.head(self.encoder(batch["image"]).classes)
            self.task.lap("forward")
            return Losses({"classes": cross_entropy(scores.float(), batch["label"])})
        return super().losses(batch, phase, epoch)

    def map_logits(self, image: Tensor) -> Tensor:
        """Logits of background and foreground, [B, 2, S, S]."""
        logits: Tensor = self.decoder(self.features(self.encoder(image)))
        return logits

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the foreground map, which is that of any class, and class scores."""
        del labels
        tokens = self.encoder(image)
        return self.foreground(self.decoder(self.features(tokens)), self.head(tokens.classes))
