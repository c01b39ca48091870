"""Frozen vision transformers of which only patch tokens are read: with or without class token, patches of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.backbones import build_backbone
from wsolpipe.networks.digests import words_sha256
from wsolpipe.networks.sources import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class PatchEncoder(nn.Module):
    """A vision transformer of timm that is read and never trained: ViT, EVA-02, vision towers of CLIP.

    Parameters
    ----------
    name, weights, model_args
        As `wsolpipe.networks.backbones.build_backbone`.
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
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> PatchEncoder:  # noqa: FBT001, FBT002 - torch's signature
        """Stay in evaluation mode."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Normalised images [B, 3, S, S] -> patch tokens after the last norm, [B, width, S / patch, S / patch]."""
        tokens: list[Tensor] = self.vit.forward_intermediates(image, indices=1, norm=True, intermediates_only=True)
        return tokens[-1]
