"""Vision towers of CLIP: images to tokens on any grid, blocks, and from tokens to the joint space."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn.functional import linear

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.attention import attend, attention_weights, heads_of, joint_projection, joint_weight, split_heads
from wsolpipe.networks.positions import stretch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsolpipe.networks.attention import Heads
    from wsolpipe.networks.positions import Grid, Positions


class Block(ABC):
    """One block; tokens are float [B, N, C], heads [B, H, N, d].

    Parameters
    ----------
    module : nn.Module
        Of the network; its weights are shared, not copied.
    prefix : int
        Tokens before the patches.
    """

    def __init__(self, module: nn.Module, prefix: int) -> None:
        self.module: Any = module
        self.prefix = prefix

    @property
    @abstractmethod
    def scale(self) -> float:
        """Factor of q·k."""

    @abstractmethod
    def whole(self, tokens: Tensor, rope: Tensor | None = None) -> Tensor:
        """The block's own forward, with fused attention."""

    @abstractmethod
    def norm(self, tokens: Tensor) -> Tensor:
        """First layer norm: what attention sees."""

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """Of the linear layer `joint`, [3C, C]."""

    @abstractmethod
    def joint(self, normed: Tensor) -> Tensor:
        """q, k and v of normalised tokens side by side, [B, N, 3C]: all that a block makes of its first layer norm."""

    @abstractmethod
    def heads(self, joint: Tensor, rope: Tensor | None = None) -> Heads:
        """q, k and v, [B, H, N, d] each, from `joint`."""

    @abstractmethod
    def merge(self, values: Tensor) -> Tensor:
        """Output of the attention layer, [B, N, C], from what the heads gathered, [B, H, N, d]."""

    @abstractmethod
    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Tokens after the block: both residual branches, given the output of the attention layer."""

    def attention(self, query: Tensor, key: Tensor) -> Tensor:
        """softmax(scale · q·kᵀ), [B, H, N, N]; rows sum to one."""
        return attention_weights(query, key, self.scale)

    def after_joint(self, tokens: Tensor, joint: Tensor, rope: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the block from its attention on.

        Parameters
        ----------
        tokens : float tensor [B, N, C]
            What enters the block.
        joint : float tensor [B, N, 3C]
            ``joint(norm(tokens))``.

        Returns
        -------
        tokens : float tensor [B, N, C]
        attention : float tensor [B, N, N]
            Averaged over heads; without graph.
        """
        gathered, attention = attend(*self.heads(joint, rope), self.scale)
        return self.finish(tokens, self.merge(gathered)), attention


class OpenClipBlock(Block):
    """``ResidualAttentionBlock`` or ``CustomResidualAttentionBlock`` of open_clip, which is OpenAI's block."""

    @property
    def scale(self) -> float:
        """1/√d."""
        return float(self.module.attn.head_dim**-0.5)

    def whole(self, tokens: Tensor, rope: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The block's own forward."""
        return cast("Tensor", self.module(tokens))

    def norm(self, tokens: Tensor) -> Tensor:
        """ln_1."""
        return cast("Tensor", self.module.ln_1(tokens))

    @property
    def weight(self) -> Tensor:
        """in_proj_weight."""
        return cast("Tensor", self.module.attn.in_proj_weight)

    def joint(self, normed: Tensor) -> Tensor:
        """One product with the joint weight."""
        return linear(normed, self.weight, self.module.attn.in_proj_bias)

    def heads(self, joint: Tensor, rope: Tensor | None = None) -> Heads:  # noqa: ARG002
        """Normalised where the layer does so."""
        layer = self.module.attn
        query, key, value = split_heads(joint, layer.num_heads)
        if hasattr(layer, "ln_q"):
            query, key = layer.ln_q(query), layer.ln_k(key)
        return query, key, value

    def merge(self, values: Tensor) -> Tensor:
        """Scale of heads and inner norm where there are any, then the output projection."""
        layer = self.module.attn
        if getattr(layer, "head_scale", None) is not None:
            values = values * layer.head_scale
        merged = values.transpose(1, 2).flatten(2)
        if hasattr(layer, "ln_inner"):
            merged = layer.ln_inner(merged)
        return cast("Tensor", layer.out_proj(merged))

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Residuals with layer scale, ln_2 and MLP."""
        block = self.module
        if hasattr(block, "ln_attn"):
            attended = block.ln_attn(attended)
        tokens = block.ls_1(attended).add_(tokens)  # in place: nothing else refers to the output of a branch
        return cast("Tensor", block.ls_2(block.mlp(block.ln_2(tokens))).add_(tokens))


class TimmBlock(Block):
    """``EvaBlock`` or ``Block`` of timm."""

    @property
    def scale(self) -> float:
        """As the layer has it."""
        return float(self.module.attn.scale)

    def whole(self, tokens: Tensor, rope: Tensor | None = None) -> Tensor:
        """The block's own forward."""
        return cast("Tensor", self.module(tokens) if rope is None else self.module(tokens, rope=rope))

    def norm(self, tokens: Tensor) -> Tensor:
        """norm1."""
        return cast("Tensor", self.module.norm1(tokens))

    @property
    def weight(self) -> Tensor:
        """Of the joint projection, or of the three under each other."""
        return joint_weight(self.module.attn)

    def joint(self, normed: Tensor) -> Tensor:
        """From the joint or the separate projections."""
        return joint_projection(self.module.attn, normed)

    def heads(self, joint: Tensor, rope: Tensor | None = None) -> Heads:
        """Normalised where the layer does so, and turned by the rotary embedding."""
        return heads_of(self.module.attn, joint, prefix=self.prefix, rope=rope)

    def merge(self, values: Tensor) -> Tensor:
        """Norm where there is one, then the output projection."""
        layer = self.module.attn
        return cast("Tensor", layer.proj(layer.norm(values.transpose(1, 2).flatten(2))))

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Residuals with layer scale, norm2 and MLP."""
        block = self.module
        tokens = self._scaled(attended, "1").add_(tokens)
        return self._scaled(block.mlp(block.norm2(tokens)), "2").add_(tokens)

    def _scaled(self, branch: Tensor, number: str) -> Tensor:
        block = self.module
        if hasattr(block, f"ls{number}"):
            return cast("Tensor", getattr(block, f"ls{number}")(branch))
        gamma = getattr(block, f"gamma_{number}", None)
        return branch if gamma is None else gamma * branch


def open_block(module: nn.Module, prefix: int, where: str) -> Block:
    """Take a block apart.

    Parameters
    ----------
    module : nn.Module
    prefix : int
        Tokens before the patches.
    where : str
        How the message calls it.

    Raises
    ------
    ConfigError
        If the block does not normalise before attention that is softmax(scale · q·kᵀ).
    """
    kind, layer = type(module).__name__, cast("Any", getattr(module, "attn", None))
    names = f"{kind} with {type(layer).__name__}"
    if kind in {"ResidualAttentionBlock", "CustomResidualAttentionBlock"}:
        if getattr(layer, "logit_scale", None) is None:
            return OpenClipBlock(module, prefix)
        names += " on cosines"
    elif kind in {"EvaBlock", "Block"} and type(layer).__name__ in {"EvaAttention", "AttentionRope", "Attention"}:
        if getattr(layer, "gate", None) is None and getattr(layer, "num_kv_groups", 1) == 1:
            return TimmBlock(module, prefix)
        names += ", gated or with grouped keys"
    msg = f"{where} is {names}, which gives no CLIP maps: attention must be softmax(scale · q·k) after a layer norm"
    raise ConfigError(msg, hint="name a plain vision transformer, such as ViT-B-16 or EVA02-L-14")


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
