"""The networks of DiPS (journal and workshop) and TrCAM-V: one forward gives maps and class scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown
from wsolpipe.networks.backbones import build_backbone
from wsoltrain.networks.decoders import TokenDecoder, UNetDecoder
from wsoltrain.networks.encoders import LAST, FrozenVit, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping


class Prediction(NamedTuple):
    """Map logits [B, 2, S, S], background and foreground; class logits [B, classes] where the network has a head."""

    logits: Tensor
    classes: Tensor | None


class Localizer(nn.Module, ABC):
    """A localizer whose parts are trained in two steps: ``head_parameters`` first, then ``map_parameters``.

    Attributes
    ----------
    has_head : bool
        Whether it classifies.
    temperature : float
        What map logits are multiplied by outside of training: above 1, maps are closer to a decision, and a threshold
        moves boxes less. The losses never see it, since they would only make the network undo it.
    """

    has_head = False
    temperature = 1.0

    @abstractmethod
    def map_parameters(self) -> list[nn.Parameter]:
        """Return what the localization losses train."""

    def head_parameters(self) -> list[nn.Parameter]:
        """Return what the classification loss trains, before and apart from the maps."""
        return []

    def classify(self, image: Tensor) -> Tensor:
        """Class logits alone, [B, classes], of a network that has a head."""
        classes: Tensor = self(image).classes
        return classes

    def scaled(self, logits: Tensor) -> Tensor:
        """Map logits as they are in training, and times `temperature` in evaluation."""
        return logits if self.training or self.temperature == 1 else logits * self.temperature

    def saved(self) -> dict[str, Tensor]:
        """Return the tensors that training changes: all but a frozen encoder's."""
        return frozen(self.state_dict(), "encoder.vit.")

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take what `saved` gave.

        Raises
        ------
        ConfigError
            If it was saved from another network.
        """
        own = self.saved()
        wrong = sorted(own.keys() ^ tensors.keys())
        wrong += [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
        if wrong:
            msg = f"these weights are of another network: {', '.join(wrong[:4])}"
            raise ConfigError(msg, hint="use the recipe, backbone and number of classes that they were trained with")
        self.load_state_dict(tensors, strict=False)


class TokenLocalizer(Localizer):
    """DiPS of the thesis (ch. 2) and TrCAM-V: a frozen transformer, a class head, a decoder of its tokens.

    Parameters
    ----------
    backbone, weights, size, model_args
        As in `FrozenVit`; the side of a patch is a power of two, and the decoder has a block for each doubling.
    classes : int
        Of the class head.
    reads : "patches", "patches+class" or "attention"
        What the decoder sees: patch tokens (DiPS), patch tokens beside the class token (TrCAM-V as written), or the
        last block's attention of all queries (TrCAM-V as released).
    """

    has_head = True

    def __init__(
        self,
        backbone: str,
        *,
        weights: str | None,
        size: int,
        classes: int,
        reads: str = "patches",
        model_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        wants = reads == "attention"
        self.encoder = FrozenVit(backbone, weights=weights, size=size, model_args=model_args, attention=wants)
        self.reads = reads
        width = self.encoder.width
        channels = {
            "patches": width,
            "patches+class": 2 * width,
            "attention": self.encoder.heads * (1 + self.encoder.cells),
        }
        if reads not in channels:
            raise ConfigError(unknown("decoder input", reads, channels))
        doublings = self.encoder.patch.bit_length() - 1
        if self.encoder.patch != 1 << doublings or size % self.encoder.patch:
            msg = f"patches of {self.encoder.patch} pixels cannot be doubled up to S={size}"
            raise ConfigError(msg, hint="a backbone of patch 8 or 16, and S a multiple of it")
        widths = (*(width >> number for number in range(1, doublings)), 2)
        self.decoder = TokenDecoder(channels[reads], widths)
        self.head = nn.Linear(LAST * width, classes)
        nn.init.normal_(self.head.weight, 0, 0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, image: Tensor) -> Prediction:
        """Maps and classes of normalised images [B, 3, S, S]."""
        tokens = self.encoder(image)
        features = tokens.patches
        if self.reads == "attention":
            features = tokens.attention
        elif self.reads == "patches+class":
            last = tokens.classes[:, -self.encoder.width :, None, None]
            features = torch.cat([features, last.expand_as(features)], 1)
        return Prediction(self.scaled(self.decoder(features)), self.head(tokens.classes))

    def classify(self, image: Tensor) -> Tensor:
        """Class logits alone."""
        logits: Tensor = self.head(self.encoder(image).classes)
        return logits

    def map_parameters(self) -> list[nn.Parameter]:
        """Return the decoder's parameters."""
        return list(self.decoder.parameters())

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the class head's parameters."""
        return list(self.head.parameters())


class UNetLocalizer(Localizer):
    """DiPS of the workshop (App. I): a U-Net on the image; the whole network is trained.

    Parameters
    ----------
    backbone : str
        A timm network of five levels, strides 2 to 32.
    weights, model_args
        As in `FrozenVit`; ``model_args.out_indices=[0, 1]`` keeps the first two levels alone: a network that sees less
        around a pixel, and so learns less of what is wrong around objects in pseudo-labels.
    """

    def __init__(self, backbone: str, *, weights: str | None, model_args: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.encoder = build_backbone(backbone, weights=weights, model_args=model_args, features_only=True)
        reductions = self.encoder.feature_info.reduction()
        if reductions != [2, 4, 8, 16, 32][: len(reductions)]:
            msg = f"backbone={backbone} has levels at strides {reductions}, a U-Net needs 2, 4, 8, 16, 32"
            raise ConfigError(msg, hint="backbone=resnet50, and out_indices from 0 on")
        self.decoder = UNetDecoder(self.encoder.feature_info.channels())

    def forward(self, image: Tensor) -> Prediction:
        """Maps of normalised images [B, 3, S, S]."""
        return Prediction(self.scaled(self.decoder(self.encoder(image))), None)

    def map_parameters(self) -> list[nn.Parameter]:
        """Return all parameters."""
        return list(self.parameters())


KINDS = ("dips", "dips_workshop", "trcam", "trcam_attention")


def build(
    kind: str,
    backbone: str,
    *,
    weights: str | None,
    size: int,
    classes: int,
    model_args: Mapping[str, Any] | None = None,
    temperature: float = 1.0,
) -> Localizer:
    """Make a network by the name of its paper; other arguments as in `TokenLocalizer` and `Localizer`.

    Raises
    ------
    ConfigError, WeightsError
        If a name is unknown or weights do not fit.
    """
    if kind not in KINDS:
        raise ConfigError(unknown("model", kind, KINDS))
    model: Localizer
    if kind == "dips_workshop":
        model = UNetLocalizer(backbone, weights=weights, model_args=model_args)
    else:
        reads = {"dips": "patches", "trcam": "patches+class", "trcam_attention": "attention"}[kind]
        model = TokenLocalizer(
            backbone, weights=weights, size=size, classes=classes, reads=reads, model_args=model_args
        )
    model.temperature = temperature
    return model


PUBLISHED: dict[str, dict[str, float]] = {
    "dips": {"parameters": 1.616e6, "macs": 2.396e9},
    "dips_workshop": {"parameters": 58.078e6, "macs": 31.895e9},
}
"""Thesis, ch. 2, complexity: heads only for `dips` (ViT-S, 200 classes); for the workshop all that inference needs,
its external classifier included."""


def complexity(model: Localizer, size: int) -> dict[str, Any]:
    """Count parameters and multiply-accumulates of one image: ``heads`` (all but a frozen encoder) and ``total``."""
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, 3, size, size, device=next(model.parameters()).device)
    training = model.training
    model.eval()
    with FlopCounterMode(display=False) as all_of_it, torch.no_grad():
        model(image)
    encoder = 0.0
    if isinstance(model, TokenLocalizer):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.encoder(image)
        encoder = counter.get_total_flops() / 2
    model.train(training)
    macs = all_of_it.get_total_flops() / 2
    heads = sum(p.numel() for p in (*model.map_parameters(), *model.head_parameters()))
    total = sum(p.numel() for p in model.parameters())
    return {
        "heads": {"parameters": heads, "macs": macs - encoder},
        "total": {"parameters": total, "macs": macs},
    }
