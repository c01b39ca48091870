"""Encoders that are read and never trained, the scoring classifier of a store, and decoders of their features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.contract.reader import open_store
from wsolpipe.networks.architectures import build_backbone, build_timm
from wsolpipe.networks.classifier import WEIGHTS_FILE, ClassifierRecord, parse_classifier
from wsolpipe.networks.pretrained import words_sha256
from wsolpipe.networks.sources import resolve
from wsolpipe.networks.vit import Tokens, read_tokens, require_tokens
from wsolpipe.networks.weights import load_into

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsoltrain.data.config import Labelling

#: Blocks whose class tokens the class head reads.
LAST = 4


class Frozen(nn.Module):
    """A network without gradients that stays in evaluation mode; a copy of what holds it shares it."""

    def freeze(self) -> None:
        """Freeze all weights; called once they are there."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's signature
        """Stay in evaluation mode."""
        del mode
        return super().train(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class FrozenVit(Frozen):
    """A vision transformer of timm with class and patch tokens.

    Parameters
    ----------
    name, weights, model_args
        As `wsolpipe.networks.architectures.build_backbone`; a transformer with a class token and fused q, k, v.
    size : int
        Side of the input, pixels.
    attention : bool
        Give the last block's attention too.

    Raises
    ------
    ConfigError
        If timm has no such model, or it is not such a transformer.
    WeightsError
        If the file is missing or does not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str | None,
        size: int,
        model_args: Mapping[str, Any] | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.vit = build_backbone(name, weights=weights, model_args=model_args, img_size=size)
        require_tokens(self.vit, f"backbone={name}", attention=attention)
        self.width: int = self.vit.embed_dim
        self.heads: int = self.vit.blocks[-1].attn.num_heads
        self.cells: int = self.vit.patch_embed.num_patches
        self.patch: int = self.vit.patch_embed.patch_size[0]
        self.wants_attention = attention
        self.freeze()

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tokens:
        """Tokens of normalised images [B, 3, S, S]."""
        return read_tokens(self.vit, image, last=LAST, attention=self.wants_attention)


class PatchEncoder(Frozen):
    """A vision transformer of timm that gives its patch tokens: ViT, EVA-02, vision towers of CLIP.

    Parameters
    ----------
    name, weights, model_args
        As `wsolpipe.networks.architectures.build_backbone`.
    size : int
        Side of the input in pixels, a multiple of the patch's.

    Attributes
    ----------
    width : int
        Channels of a token.
    patch : int
        Side of a patch in pixels.
    sha256 : str
        Of the weights file; of the seed or of no weights where they are random.

    Raises
    ------
    ConfigError
        If timm has no such model, it does not cut images into patches, or they do not tile the image.
    WeightsError
        If the file is missing or does not fit.
    """

    def __init__(
        self, name: str, *, weights: str | None, size: int, model_args: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.vit = build_backbone(name, weights=weights, model_args=model_args, img_size=size)
        patch = getattr(getattr(self.vit, "patch_embed", None), "patch_size", (0, 1))
        if len(set(patch)) > 1 or not hasattr(self.vit, "forward_intermediates") or not hasattr(self.vit, "blocks"):
            msg = f"backbone={name} is not a vision transformer with square patches"
            raise ConfigError(msg, hint="name a vision transformer, such as vit_base_patch16_clip_224.openai")
        self.width, self.patch = int(self.vit.embed_dim), int(patch[0])
        if size % self.patch:
            below = size // self.patch * self.patch
            msg = f"size={size} is not a multiple of the patch size {self.patch} of {name}"
            raise ConfigError(msg, hint=f"size={below} or size={below + self.patch}")
        found = None if weights is None else resolve(weights, model=name)
        self.sha256 = words_sha256("random") if found is None else found.sha256
        self.freeze()

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Normalised images [B, 3, S, S] -> patch tokens after the last norm, [B, width, S / patch, S / patch]."""
        tokens: list[Tensor] = self.vit.forward_intermediates(image, indices=1, norm=True, intermediates_only=True)
        return tokens[-1]


class Judge(Frozen):
    """The scoring classifier of a store with its preprocessing; gradients flow to its input.

    Parameters
    ----------
    record : ClassifierRecord
        As the stage recorded it.
    tensors : mapping of str to Tensor
        Its state.

    Raises
    ------
    WeightsError
        If they do not fit each other.
    ConfigError
        If it reads other features than timm's own head does.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, record: ClassifierRecord, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        if record.features != "pooled":
            msg = f"a classifier on {record.features} features cannot judge masked images"
            raise ConfigError(msg, hint="wsolpipe run stage=classifier classifier.features=pooled …")
        self.size, self.outputs = record.size, record.outputs
        self.net = build_timm(record.model, record.model_args, outputs=record.outputs, size=record.size)
        load_into(self.net, tensors, what=f"the classifier {record.model}")
        self.register_buffer("mean", torch.tensor(record.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(record.std)[:, None, None], persistent=False)
        self.freeze()

    def normalised(self, rgb: Tensor) -> Tensor:
        """Pixels uint8 [B, 3, H, W] -> float32 in the classifier's units, of the same size."""
        scaled: Tensor = (rgb.float() / 255 - self.mean) / self.std
        return scaled

    def forward(self, image: Tensor) -> Tensor:
        """Class logits of what `normalised` gave, squashed to the classifier's own size."""
        if image.shape[-2:] != (self.size, self.size):
            image = interpolate(image, (self.size, self.size), mode="bilinear", antialias=True)
        logits: Tensor = self.net(image)
        return logits


def load_judge(labelling: Labelling, *, file: str | None, classes: int) -> Judge:
    """Load the classifier that a store's stage ``classifier`` made, the newest, or one of its files.

    Parameters
    ----------
    labelling : Labelling
        Store and data set.
    file : str or None
        ``model.safetensors`` of such a stage, instead of the store's.
    classes : int
        Number of classes that labels count.

    Raises
    ------
    NotFoundError
        If the store has none; names the command that makes it.
    WeightsError, ConfigError
        If the file is not such a classifier, or one of fewer classes.
    """
    if file is None:
        artifact = open_store(labelling.store)[labelling.dataset].artifact("classifier")
        content, where = artifact.read(WEIGHTS_FILE), f"classifier {artifact.key}"
    else:
        try:
            content, where = Path(file).read_bytes(), file
        except OSError as error:
            msg = f"classifier={file} cannot be read: {error.strerror}"
            raise WeightsError(msg, hint="classifier=model.safetensors of a stage classifier") from error
    judge = Judge(*parse_classifier(content, where))
    if judge.outputs < classes:
        msg = f"{where} knows {judge.outputs} classes, the data set has {classes}"
        raise ConfigError(msg, hint=labelling.command("classifier"))
    return judge


def _convolution(given: int, made: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(given, made, 3, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU())


class TokenDecoder(nn.Module):
    """Blocks of {x2, conv 3x3-BN-ReLU twice}: a patch grid to pixels (DiPS, TrCAM-V; four for patches of 16).

    The last block ends in BN and ReLU as well, so outputs are not negative, as in the released networks.

    Parameters
    ----------
    channels : int
        Of the input.
    widths : sequence of int
        Channels that each block makes; none for no block, which returns its input.
    mode : "nearest" or "bilinear"
        How a block doubles its input.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], *, mode: Literal["nearest", "bilinear"] = "nearest"
    ) -> None:
        super().__init__()
        self.mode = mode
        pairs = zip((channels, *widths[:-1]), widths, strict=False)
        self.blocks = nn.ModuleList(nn.Sequential(_convolution(a, b), _convolution(b, b)) for a, b in pairs)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', H, W], each side doubled once a block."""
        for block in self.blocks:
            features = block(interpolate(features, scale_factor=2.0, mode=self.mode))
        return features


class UNetDecoder(nn.Module):
    """U-Net decoder of a pyramid (DiPS workshop): nearest x2, skip, two convolutions a stage; a 3x3 head.

    Initialised as the released network: convolutions uniform with variance 2 / fan-in (He et al. 2015), the head
    uniform with variance 2 / (fan-in + fan-out) (Glorot and Bengio 2010) and without bias. PyTorch's default has a
    variance six times smaller, on which the released learning rates act six times harder.

    Parameters
    ----------
    pyramid : sequence of int
        Channels of the encoder's features, fine to coarse, each smaller than the one before, be it by half or not.
    widths : sequence of int
        Of the stages, coarse to fine; a pyramid of fewer levels takes the last ones.
    whole : bool
        Whether the finest level has the size of the image (VGG16), so that nothing is left to be doubled after it.
    """

    def __init__(
        self, pyramid: Sequence[int], widths: Sequence[int] = (256, 128, 64, 32, 16), *, whole: bool = False
    ) -> None:
        super().__init__()
        skips = (*reversed(pyramid[:-1]), *(() if whole else (0,)))
        widths = widths[-len(skips) :]
        below = (pyramid[-1], *widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(_convolution(low + skip, width), _convolution(width, width))
            for low, skip, width in zip(below, skips, widths, strict=True)
        )
        self.head = nn.Conv2d(widths[-1], 2, 3, padding=1)
        for layer in self.stages.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, pyramid: Sequence[Tensor], size: Sequence[int] | None = None) -> Tensor:
        """Features fine to coarse -> logits [B, 2, H, W] at `size`, by default twice the finest level."""
        features, *finer = reversed(list(pyramid))
        for number, stage in enumerate(self.stages):
            if number < len(finer):
                skip = finer[number]
                features = torch.cat([interpolate(features, size=skip.shape[-2:], mode="nearest"), skip], 1)
            else:
                features = interpolate(features, size or [2 * side for side in features.shape[-2:]], mode="nearest")
            features = stage(features)
        logits: Tensor = self.head(features)
        return logits
