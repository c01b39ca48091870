"""Access to the parts of transformer blocks: first layer norm, q, k and v, merged heads, and both residual branches.

Maps of CLIP need what a block's own forward hides: its attention, the gradient at its first layer norm, or another
attention in the place of its own. Blocks of open_clip and of timm's EVA and plain vision transformers are known here,
all of them normalising before attention.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, cast

from torch.nn.functional import linear

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.attention import attend, attention_weights, heads_of, joint_projection, joint_weight, split_heads

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsolpipe.networks.attention import Heads


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
