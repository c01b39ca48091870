"""Vision transformers of timm: built without head, and read: class-token attention, tokens, attention of all queries.

Class-token attention is the row of softmax(q·kᵀ) of the class token, head by head, in chosen blocks: the maps of DINO
(Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021, figure 1). Only that row is
computed, and nothing after the last wanted row: in that block neither v, nor the other queries, nor the MLP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.architectures import create
from wsolpipe.networks.attention import (
    attention_weights,
    class_token_row,
    heads_of,
    is_windowed,
    joint_projection,
    require_windows,
)

#: Attention layers of timm whose weights are softmax(scale · q·kᵀ) with nothing added.
ATTENTIONS = ("Attention", "AttentionRope", "EvaAttention")
#: Blocks that normalise before attention, and blocks that normalise after it.
PRE_NORM, POST_NORM = ("Block", "EvaBlock"), ("ResPostBlock", "EvaBlockPostNorm")


def build_vit(
    model: str, *, size: int, model_args: Mapping[str, Any] | None = None, seed: int = 0, windows: bool = False
) -> nn.Module:
    """Build a timm vision transformer with a class token, without head, in evaluation mode, with random weights.

    Parameters
    ----------
    model : str
        timm's name, with or without tag.
    size : int
        Height and width of the input in pixels. Positional embeddings get that size when they are loaded, or, with
        ``dynamic_img_size`` in `model_args`, when they are used.
    model_args : mapping, optional
        Further arguments of ``timm.create_model``, such as ``patch_size``.
    seed : int
        Of the initialisation; torch's own generator is left as it was.
    windows : bool
        Whether a Swin transformer will do too, which attends in windows and has no class token.

    Returns
    -------
    nn.Module
        Gradients are off.

    Raises
    ------
    ConfigError
        If timm has no such model, it takes no such arguments, it has no class-token attention, or the patches do not
        tile the size.
    """
    options = dict(model_args or {})
    if "img_size" in options:
        msg = f"model_args.img_size={options['img_size']} contradicts size={size}"
        raise ConfigError(msg, hint="set size= only")
    fixed: dict[str, Any] = {"num_classes": 0}
    if not options.get("dynamic_img_size"):
        fixed["img_size"] = size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            vit = create(model, options, **fixed)
        except ConfigError as error:
            if "img_size" in fixed and "'img_size'" in str(error.__cause__):  # what convolutions do not take
                raise _no_class_token(model, "it is not a vision transformer") from error
            raise
    if windows and is_windowed(vit):
        require_windows(vit, model, size)
    else:
        require_class_token(vit, model)
        require_tiling(vit, model, size)
    if _is_beit(vit):
        cast("Any", vit).norm = cast("Any", vit).fc_norm = (
            nn.Identity()
        )  # after all blocks, one or the other, as trained
    return vit.eval().requires_grad_(requires_grad=False)


def unread_keys(vit: nn.Module) -> tuple[str, ...]:
    """Prefixes of tensors of a weights file that no map reads and a network of `build_vit` does not have."""
    return ("norm.",) if _is_beit(vit) else ()


def require_tiling(vit: Any, model: str, size: int, *, key: str = "size") -> None:
    """Refuse an input whose side is not a multiple of the patch; `key` is the one that gives it.

    Raises
    ------
    ConfigError
        Names the nearest sizes that are.
    """
    patch = getattr(getattr(vit, "patch_embed", None), "patch_size", None)
    if patch is None or getattr(vit.patch_embed, "dynamic_img_pad", False):
        return
    for side in patch:
        if size % side:
            below = size // side * side
            near = " or ".join(str(value) for value in (below, below + side) if value)
            msg = f"{key}={size} is not a multiple of the patch size {side} of {model}"
            raise ConfigError(msg, hint=f"set {key}={near}")


def block_numbers(blocks: int | str | Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Read which blocks are meant.

    Parameters
    ----------
    blocks : int, str, sequence of int or None
        Number of one block from 0 (negative: from the end), a list of them, ``"8-11"`` (both included), or None for
        the last.
    depth : int
        Blocks that the model has.

    Returns
    -------
    tuple of int
        Ascending, without repetition.

    Raises
    ------
    ConfigError
        If it is empty, unreadable or outside the model.

    Examples
    --------
    >>> block_numbers("8-11", 12), block_numbers(None, 12), block_numbers([-1, 0], 12)
    ((8, 9, 10, 11), (11,), (0, 11))
    """
    try:
        given = _listed(blocks)
    except ValueError:
        given = []
    numbers = sorted({number + depth if number < 0 else number for number in given})
    if not numbers or numbers[0] < 0 or numbers[-1] >= depth:
        msg = f"blocks={blocks!r} names no blocks of this model, which are 0 to {depth - 1}"
        raise ConfigError(
            msg, hint=f"write blocks={depth - 1}, blocks=[{max(depth - 2, 0)},{depth - 1}] or blocks=0-{depth - 1}"
        )
    return tuple(numbers)


def _listed(blocks: int | str | Sequence[int] | None) -> list[int]:
    if blocks is None:
        return [-1]
    if isinstance(blocks, int):
        return [blocks]
    if not isinstance(blocks, str):
        return list(blocks)
    first, dash, last = blocks.partition("-")
    if dash and first:
        return list(range(int(first), int(last) + 1))
    return [int(blocks)]


class ClassTokenAttention(nn.Module):
    """Attention of the class token to each patch, explicit, for chosen blocks of a timm vision transformer.

    Parameters
    ----------
    vit : nn.Module
        timm model with a class token; its weights are shared, not copied.
    blocks : sequence of int
        Ascending numbers of the blocks whose rows are wanted.
    model : str
        How messages call the model.

    Raises
    ------
    ConfigError
        If the model has no class token, or attention that is not plain softmax(q·kᵀ).
    """

    reads: ClassVar[str] = "class-token attention"
    vit: Any

    def __init__(self, vit: nn.Module, blocks: Sequence[int], *, model: str = "the model") -> None:
        super().__init__()
        require_class_token(vit, model)
        self.vit = vit
        self.blocks = tuple(blocks)
        self.heads = int(self.vit.blocks[self.blocks[-1]].attn.num_heads)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches of an image of `size` (height, width) pixels."""
        rows, columns = self.vit.patch_embed.dynamic_feat_size(size)
        return int(rows), int(columns)

    def forward(self, images: Tensor) -> Tensor:
        """Read the rows.

        Parameters
        ----------
        images : float tensor [B, 3, H, W]
            Normalised as the model expects.

        Returns
        -------
        float32 tensor [B, blocks, heads, h, w]
            Shares of the class token's attention, softmax over *all* tokens; those of the class token itself and of
            registers are left out, so a map sums to less than one.
        """
        vit, (height, width) = self.vit, self.grid((images.shape[-2], images.shape[-1]))
        tokens, rope = _embed(vit, images)
        rows = []
        for number, block in enumerate(vit.blocks):
            turned = rope[number] if rope is not None and getattr(vit, "rope_mixed", False) else rope
            if number in self.blocks:
                seen = tokens if type(block).__name__ in POST_NORM else block.norm1(tokens)
                rows.append(class_token_row(block.attn, seen, rope=turned))
            if number == self.blocks[-1]:
                break
            tokens = block(tokens) if rope is None else block(tokens, rope=turned)
        patches = torch.stack(rows, dim=1)[..., int(vit.num_prefix_tokens) :]
        return patches.reshape(*patches.shape[:-1], height, width)


def _embed(vit: Any, images: Tensor) -> tuple[Tensor, Any]:
    """Tokens that the first block reads, and the rotary embedding where there is one."""
    tokens = vit.patch_embed(images)
    if _is_beit(vit):
        tokens = torch.cat([vit.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return (tokens if vit.pos_embed is None else tokens + vit.pos_embed), None
    embedded = vit._pos_embed(tokens)
    tokens, rope = embedded if isinstance(embedded, tuple) else (embedded, None)
    return vit.norm_pre(tokens), rope


def _is_beit(vit: nn.Module) -> bool:
    """Whether a network is BEiT's, whose relative positions are added to the scores of each block."""
    return type(vit).__name__ == "Beit"


def require_class_token(vit: nn.Module, model: str) -> None:
    """Refuse a network that is not a vision transformer whose class token attends to patches.

    Raises
    ------
    ConfigError
        Says what is missing.
    """
    reason = None
    if getattr(vit, "cls_token", None) is None or not getattr(vit, "num_prefix_tokens", 0):
        reason = "it has no class token"
    elif _is_beit(vit) and getattr(vit, "rel_pos_bias", None) is not None:
        reason = "its blocks share one table; leave out use_shared_rel_pos_bias, and a file's table is copied to each"
    elif not _is_beit(vit) and not all(
        hasattr(vit, part) for part in ("_pos_embed", "norm_pre", "blocks", "patch_embed")
    ):
        reason = f"{type(vit).__name__} is not built as timm's VisionTransformer"
    else:
        for number, block in enumerate(cast("Any", vit).blocks):
            kind, attention = type(block).__name__, type(getattr(block, "attn", None)).__name__
            if kind not in PRE_NORM + POST_NORM or attention not in ATTENTIONS:
                reason = f"block {number} is {kind} with {attention}, not plain softmax(q·k)"
                break
    if reason:
        raise _no_class_token(model, reason)


def _no_class_token(model: str, reason: str) -> ConfigError:
    msg = f"model={model} gives no class-token maps: {reason}"
    hint = (
        "name a plain vision transformer with a class token, such as vit_small_patch16_224.dino, "
        "vit_base_patch14_dinov2 or deit_small_patch16_224"
    )
    return ConfigError(msg, hint=hint)


class Tokens(NamedTuple):
    """Tokens of a batch.

    Attributes
    ----------
    patches : float Tensor [B, D, h, w]
        Patch tokens after the last norm.
    classes : float Tensor [B, last * D]
        Class tokens of the last blocks, each after that norm.
    attention : float Tensor [B, heads * (1 + h w), h, w] or None
        Last block: how much each query (class token first) looks at each patch; where asked for.
    """

    patches: Tensor
    classes: Tensor
    attention: Tensor | None


def require_tokens(vit: Any, model: str, *, attention: bool = False) -> None:
    """Refuse a network that `read_tokens` cannot read.

    Raises
    ------
    ConfigError
        If it is not a vision transformer with one class token and, where its attention is wanted, one that is plain
        softmax(q·kᵀ) without rotary embedding.
    """
    if attention:
        require_class_token(vit, model)
    plain = all(hasattr(vit, part) for part in ("blocks", "patch_embed", "embed_dim", "forward_intermediates"))
    layer = getattr(vit.blocks[-1], "attn", None) if plain else None
    reason = None
    if not plain or getattr(vit, "cls_token", None) is None or getattr(vit, "num_prefix_tokens", 0) != 1:
        reason = "is not a vision transformer with one class token"
    elif attention and (getattr(vit, "rope", None) is not None or getattr(layer, "num_kv_groups", 1) != 1):
        reason = "turns or groups its keys, so the attention of all queries cannot be read"
    elif attention and _is_beit(vit):
        reason = "adds relative positions to its scores, so the attention of all queries cannot be read"
    elif not hasattr(layer, "num_heads"):
        reason = "has blocks without attention heads"
    if reason:
        msg = f"{model} {reason}"
        raise ConfigError(msg, hint="name a plain vision transformer, such as vit_small_patch16_224")


def read_tokens(vit: Any, images: Tensor, *, last: int, attention: bool = False) -> Tokens:
    """Run a vision transformer with one class token and keep what heads read.

    Parameters
    ----------
    vit : nn.Module
        Any timm model that `require_tokens` takes.
    images : float tensor [B, 3, H, W]
        Normalised.
    last : int
        Blocks whose class tokens are kept.
    attention : bool
        Keep the last block's attention too.
    """
    seen: dict[str, Tensor] = {}
    layer = vit.blocks[-1].attn
    hook = layer.register_forward_pre_hook(lambda _, given: seen.update(last=given[0]))
    try:
        features = vit.forward_intermediates(
            images, indices=last, return_prefix_tokens=True, norm=True, intermediates_only=True
        )
    finally:
        hook.remove()
    patches = features[-1][0]
    classes = torch.cat([prefix[:, 0] for _, prefix in features], 1)
    if not attention:
        return Tokens(patches, classes, None)
    query, key, _ = heads_of(layer, joint_projection(layer, seen["last"]), prefix=vit.num_prefix_tokens)
    weights = attention_weights(query, key, layer.scale)[..., vit.num_prefix_tokens :]
    return Tokens(patches, classes, weights.flatten(1, 2).reshape(len(patches), -1, *patches.shape[-2:]))
