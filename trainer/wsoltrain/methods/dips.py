"""DiPS in both versions, and TrCAM-V: decoders trained on pixels that are drawn from pseudo-labels."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.architectures import build_backbone
from wsoltrain.methods.base import Batch, Losses, Phase, Prediction, Task, Weighted
from wsoltrain.methods.pixel_trained import PixelTrained, PixelTrainedKeys
from wsoltrain.networks.backbone import BackboneKeys
from wsoltrain.networks.encoders import LAST, FrozenVit, TokenDecoder, UNetDecoder

if TYPE_CHECKING:
    from wsolpipe.networks.vit import Tokens


class DipsKeys(BackboneKeys, PixelTrainedKeys):
    """Keys of DiPS and TrCAM-V.

    Attributes
    ----------
    head_epochs
        Epochs in which the class head is trained, before the maps
    head_lr
        Learning rate of the class head, constant
    """

    head_epochs: int = Field(10, ge=0, le=10**6)
    head_lr: float = Field(0.1, gt=0, le=1e30)


class Dips(PixelTrained[DipsKeys]):
    """DiPS: a frozen transformer, a decoder of its patch tokens, and a class head on its last four class tokens.

    Murtaza et al., "DiPS: discriminative pseudo-label sampling with self-supervised transformers", Image and Vision
    Computing 2023; thesis, chapter 2. The decoder is trained on pixels drawn from pseudo-labels. Patches have a side of
    a power of two, and the decoder one block for each doubling up to the image's size.
    """

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


class DipsWorkshopKeys(BackboneKeys, PixelTrainedKeys):
    """Keys of the workshop's DiPS.

    Attributes
    ----------
    head_epochs
        Always 0, since this method has no class head
    """

    head_epochs: Literal[0] = 0


class DipsWorkshop(PixelTrained[DipsWorkshopKeys]):
    """DiPS, workshop version: a U-Net on the image, all of it trained, which does not classify.

    Murtaza et al., "Discriminative sampling of proposals in self-supervised transformers", WACV workshops 2023; thesis,
    appendix I. Its encoder is a timm network of levels at strides 1 or 2, 4, 8, … ``model_args.out_indices=[0, 1]``
    keeps the first two: such a network sees less around a pixel, and so learns less of what is wrong around objects in
    pseudo-labels.
    """

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


class TrCam(Dips):
    """TrCAM-V as written: DiPS's network, whose decoder reads each patch token beside the class token.

    "Leveraging transformers for weakly supervised object localization in unconstrained videos", ANNPR 2024; thesis,
    appendix II. Foreground and background are drawn from one map, and a loss of map sizes is added.
    """

    def channels(self) -> int:
        """Patch token and class token."""
        return 2 * self.encoder.width

    def features(self, tokens: Tokens) -> Tensor:
        """Patch tokens and the last block's class token, [B, 2 D, h, w]."""
        last = tokens.classes[:, -self.encoder.width :, None, None]
        return torch.cat([tokens.patches, last.expand_as(tokens.patches)], 1)


class TrCamAttention(Dips):
    """TrCAM-V as released: the decoder reads the last block's attention of all queries to the patches."""

    wants_attention: ClassVar[bool] = True

    def channels(self) -> int:
        """One channel for each head and query."""
        return self.encoder.heads * (1 + self.encoder.cells)

    def features(self, tokens: Tokens) -> Tensor:
        """Attention of each head and query to each patch, [B, heads (1 + h w), h, w]."""
        assert tokens.attention is not None  # noqa: S101 - asked for by `wants_attention`
        return tokens.attention
