"""Vision towers of CLIP: images to tokens on any grid, blocks, and from tokens to the joint space."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, cast

import torch

from wsolpipe.contract.errors import ConfigError
from wsolpipe.models.clip_blocks import open_block
from wsolpipe.networks.positions import stretch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsolpipe.models.clip_blocks import Block
    from wsolpipe.networks.positions import Grid, Positions


class Tower(ABC):
    """A vision transformer with a class token.

    Attributes
    ----------
    patch : int
        Side of a patch in pixels.
    size : (height, width)
        Image size of training.
    blocks : tuple of Block
    prefix : int
        Tokens before the patches.
    positions : "bilinear", "timm" or "dino"
        How position embeddings are stretched to another grid.
    """

    blocks: tuple[Block, ...]
    patch: int
    size: tuple[int, int]
    prefix: int

    def __init__(self, visual: nn.Module, positions: Positions) -> None:
        self.visual: Any = visual
        self.positions = positions

    @abstractmethod
    def tokens(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what enters the first block, [B, P + hw, C], and the rotary embedding where there is one."""

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens [..., C] after the last block -> joint space [..., D]: final norm and projection, token by token."""

    @abstractmethod
    def embed_mean(self, tokens: Tensor) -> Tensor:
        """Tokens [B, n, C] -> joint space [B, D]: final norm, mean over n, projection."""

    def grid(self, images: Tensor) -> Grid:
        """Rows and columns of patches of images [B, 3, H, W].

        Raises
        ------
        ConfigError
            If the patches do not tile them.
        """
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch or not height or not width:
            msg = f"images of {height} x {width} pixels are not tiled by patches of {self.patch}"
            raise ConfigError(msg, hint="resize them so that both sides are multiples of the patch")
        return height // self.patch, width // self.patch

    def stretched(self, table: Tensor, own: Grid, grid: Grid, prefix: int) -> Tensor:
        """Position embeddings [prefix + n, C] for another grid; those of prefix tokens stay."""
        return stretch(table, own, grid, prefix=prefix, positions=self.positions)


class OpenClipTower(Tower):
    """open_clip's ``VisionTransformer``, which is OpenAI's."""

    prefix = 1

    def __init__(self, visual: nn.Module, positions: Positions, name: str) -> None:
        super().__init__(visual, positions)
        if self.visual.attn_pool is not None:
            msg = f"{name} pools by attention; CLIP maps need the mean of patch tokens"
            raise ConfigError(msg, hint="name a plain CLIP, such as ViT-B-16")
        sides = self.visual.patch_size
        self.patch, self.size = _square(sides, name), tuple(self.visual.image_size)
        self.own: Grid = tuple(self.visual.grid_size)
        blocks = self.visual.transformer.resblocks
        self.blocks = tuple(open_block(block, 1, f"block {n} of {name}") for n, block in enumerate(blocks))

    def tokens(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Patches, class token, positions, ln_pre."""
        visual, grid = self.visual, self.grid(images)
        patches = visual.conv1(images).flatten(2).transpose(1, 2)
        first = visual.class_embedding.expand(len(images), 1, -1)
        table = self.stretched(visual.positional_embedding, self.own, grid, 1)
        return cast("Tensor", visual.ln_pre(torch.cat([first, patches], dim=1) + table)), None

    def embed(self, tokens: Tensor) -> Tensor:
        """ln_post and projection."""
        return self._projected(self.visual.ln_post(tokens))

    def embed_mean(self, tokens: Tensor) -> Tensor:
        """ln_post before the mean; after it in towers that are built so."""
        if self.visual.final_ln_after_pool:
            return self.embed(tokens.mean(dim=1))
        return self._projected(self.visual.ln_post(tokens).mean(dim=1))

    def _projected(self, tokens: Tensor) -> Tensor:
        return tokens if self.visual.proj is None else cast("Tensor", tokens @ self.visual.proj)


class TimmTower(Tower):
    """open_clip's adapter around a vision transformer of timm, such as EVA02's."""

    def __init__(self, visual: nn.Module, positions: Positions, name: str) -> None:
        super().__init__(visual, positions)
        trunk = self.visual.trunk
        if getattr(trunk, "cls_token", None) is None or not hasattr(trunk, "patch_embed"):
            msg = f"the vision tower of {name} has no class token"
            raise ConfigError(msg, hint="name a vision transformer with one, such as ViT-B-16 or EVA02-L-14")
        if hasattr(trunk.patch_embed, "backbone"):
            msg = f"the vision tower of {name} cuts its patches from the features of a convolutional network"
            raise ConfigError(msg, hint="name a plain vision transformer, such as ViT-B-16 or EVA02-L-14")
        if getattr(trunk, "rope_mixed", False) or getattr(trunk, "attn_pool", None) is not None:
            msg = f"the vision tower of {name} has rotary embeddings a block, or pools by attention"
            raise ConfigError(msg, hint="name a plain vision transformer, such as ViT-B-16 or EVA02-L-14")
        self.patch = _square(trunk.patch_embed.patch_size, name)
        self.size, self.own = tuple(trunk.patch_embed.img_size), tuple(trunk.patch_embed.grid_size)
        self.prefix = int(trunk.num_prefix_tokens)
        # A copy: it is set to each grid in turn, and the network's own forward must not notice.
        self.rope: Any = copy.deepcopy(getattr(trunk, "rope", None))
        self.blocks = tuple(open_block(b, self.prefix, f"block {n} of {name}") for n, b in enumerate(trunk.blocks))

    def tokens(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Patches, prefix tokens, positions, norm_pre; the rotary embedding of this grid."""
        trunk, grid = self.visual.trunk, self.grid(images)
        patches = trunk.patch_embed.norm(trunk.patch_embed.proj(images).flatten(2).transpose(1, 2))
        registers = getattr(trunk, "reg_token", None)
        before = [token.expand(len(images), -1, -1) for token in (trunk.cls_token, registers) if token is not None]
        covered = 0 if trunk.no_embed_class else self.prefix
        table = None if trunk.pos_embed is None else self.stretched(trunk.pos_embed[0], self.own, grid, covered)
        if table is not None and not covered:
            patches = patches + table
        tokens = torch.cat([*before, patches], dim=1)
        if table is not None and covered:
            tokens = tokens + table
        return trunk.norm_pre(tokens), self._rotary(grid)

    def embed(self, tokens: Tensor) -> Tensor:
        """Final norm, timm's head, open_clip's head."""
        return self._headed(self.visual.trunk.norm(tokens))

    def embed_mean(self, tokens: Tensor) -> Tensor:
        """Final norm, mean, heads."""
        return self._headed(self.visual.trunk.norm(tokens).mean(dim=1))

    def _rotary(self, grid: Grid) -> Tensor | None:
        if self.rope is None:
            return None
        if hasattr(self.rope, "update_feat_shape"):  # made for one grid and kept; does nothing where that is the one
            self.rope.update_feat_shape(grid)
        return cast("Tensor", self.rope.get_embed(shape=grid))

    def _headed(self, tokens: Tensor) -> Tensor:
        trunk = self.visual.trunk
        return cast("Tensor", self.visual.head(trunk.head(trunk.fc_norm(tokens))))


def _square(sides: Any, name: str) -> int:
    height, width = (sides, sides) if isinstance(sides, int) else tuple(sides)
    if height != width:
        msg = f"patches of {name} are {height} x {width} pixels; square ones are needed"
        raise ConfigError(msg)
    return int(height)


def open_tower(visual: nn.Module, name: str, positions: Positions = "bilinear") -> Tower:
    """Take a vision tower apart.

    Raises
    ------
    ConfigError
        If it is not a vision transformer with a class token and plain attention.
    """
    kind = type(visual).__name__
    if kind == "VisionTransformer":
        return OpenClipTower(visual, positions, name)
    if kind == "TimmModel":
        return TimmTower(visual, positions, name)
    msg = f"the vision tower of {name} is {kind}, not a vision transformer"
    raise ConfigError(msg, hint="name a vision transformer, such as ViT-B-16 or EVA02-L-14")
