"""Where a vision transformer's class token looks: its row of softmax(q·kᵀ), head by head, in chosen blocks.

The maps of DINO (Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021, figure 1), for
any timm vision transformer with a class token. Fused attention returns no weights, so q and k are taken explicitly,
and of the N x N matrix only the class token's row is computed. Nothing after the last wanted row is computed at all:
in that block neither v, nor the other queries, nor the MLP.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.functional import linear

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

#: Attention layers of timm whose weights are softmax(scale · q·kᵀ) with nothing added.
ATTENTIONS = ("Attention", "AttentionRope", "EvaAttention")
#: Blocks that normalise before attention, and blocks that normalise after it.
PRE_NORM, POST_NORM = ("Block", "EvaBlock"), ("ResPostBlock", "EvaBlockPostNorm")


def build_vit(model: str, *, size: int, model_args: Mapping[str, Any] | None = None, seed: int = 0) -> nn.Module:
    """Build a timm vision transformer without head, in evaluation mode, with random weights.

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

    Returns
    -------
    nn.Module
        Gradients are off.

    Raises
    ------
    ConfigError
        If timm has no such model, it takes no such arguments, or the patches do not tile the size.
    """
    import timm

    options = dict(model_args or {})
    if "img_size" in options:
        msg = f"model_args.img_size={options['img_size']} contradicts size={size}"
        raise ConfigError(msg, hint="set size= only")
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=6, cutoff=0.3)
        raise ConfigError(unknown("timm model", model, near or timm.list_models("vit_*_patch16_224")))
    if not options.get("dynamic_img_size"):
        options["img_size"] = size
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vit = timm.create_model(model, pretrained=False, **{"num_classes": 0, **options})
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        msg = f"cannot build {model} with {_spelt(options)}: {reason}"
        raise ConfigError(
            msg, hint="name a vision transformer, such as vit_small_patch16_224, and its own arguments"
        ) from error
    _require_tiling(vit, model, size)
    return cast("nn.Module", vit.eval().requires_grad_(requires_grad=False))


def _spelt(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "no arguments"


def _require_tiling(vit: Any, model: str, size: int) -> None:
    patch = getattr(getattr(vit, "patch_embed", None), "patch_size", None)
    if patch is None or getattr(vit.patch_embed, "dynamic_img_pad", False):
        return
    for side in patch:
        if size % side:
            below = size // side * side
            near = " or ".join(str(value) for value in (below, below + side) if value)
            msg = f"size={size} is no multiple of the patch size {side} of {model}"
            raise ConfigError(msg, hint=f"set size={near}")


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

    vit: Any

    def __init__(self, vit: nn.Module, blocks: Sequence[int], *, model: str = "the model") -> None:
        super().__init__()
        _require_rows(vit, model)
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
        embedded = vit._pos_embed(vit.patch_embed(images))
        tokens, rope = embedded if isinstance(embedded, tuple) else (embedded, None)
        tokens = vit.norm_pre(tokens)
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


def _require_rows(vit: nn.Module, model: str) -> None:
    reason = None
    if getattr(vit, "cls_token", None) is None or not getattr(vit, "num_prefix_tokens", 0):
        reason = "it has no class token"
    elif not hasattr(vit, "_pos_embed") or not hasattr(vit, "norm_pre"):
        reason = f"{type(vit).__name__} is not laid out as timm's VisionTransformer"
    else:
        for number, block in enumerate(cast("Any", vit).blocks):
            kind, attention = type(block).__name__, type(getattr(block, "attn", None)).__name__
            if kind not in PRE_NORM + POST_NORM or attention not in ATTENTIONS:
                reason = f"block {number} is {kind} with {attention}, not plain softmax(q·k)"
                break
    if reason:
        msg = f"{model} gives no class-token maps: {reason}"
        raise ConfigError(
            msg, hint="name a plain vision transformer with a class token, such as vit_small_patch16_224.dino"
        )


def class_token_row(attention: Any, tokens: Tensor, *, rope: Tensor | None = None) -> Tensor:
    """First row of softmax(scale · q·kᵀ) of one attention layer.

    Parameters
    ----------
    attention : nn.Module
        timm's ``Attention``, ``AttentionRope`` or ``EvaAttention``.
    tokens : float tensor [B, N, C]
        Input of the layer, the class token first.
    rope : float tensor, optional
        Rotary embedding of the patches; prefix tokens are not turned, so the class token's query is not either.

    Returns
    -------
    float32 tensor [B, heads, N]
        Rows sum to one.
    """
    query, key = _query_and_keys(attention, tokens)
    query, key = attention.q_norm(query), attention.k_norm(key)
    if rope is not None:
        key = _turned(attention, key, rope)
    if key.shape[1] != query.shape[1]:  # grouped-query attention: head h uses key head h // group
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    with torch.autocast(tokens.device.type, enabled=False):  # these numbers are the result
        scores: Tensor = (query.float() * attention.scale) @ key.float().transpose(-2, -1)
        return scores.softmax(dim=-1).squeeze(-2)


def _query_and_keys(attention: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Query of the first token [B, heads, 1, d] and keys of all [B, heads, N, d], no values."""
    first = tokens[:, :1]
    if attention.qkv is None:
        query, key = attention.q_proj(first), attention.k_proj(tokens)
    else:
        weight = attention.qkv.weight
        width = weight.shape[0] // 3
        query = linear(first, weight[:width], _bias(attention, slice(0, width), "q_bias"))
        key = linear(tokens, weight[width : 2 * width], _bias(attention, slice(width, 2 * width), "k_bias"))
    depth = query.shape[-1] // attention.num_heads
    return query.unflatten(-1, (-1, depth)).transpose(1, 2), key.unflatten(-1, (-1, depth)).transpose(1, 2)


def _bias(attention: Any, rows: slice, separate: str) -> Tensor | None:
    if attention.qkv.bias is not None:
        return cast("Tensor", attention.qkv.bias[rows])
    return cast("Tensor | None", getattr(attention, separate, None))


def _turned(attention: Any, key: Tensor, rope: Tensor) -> Tensor:
    from timm.layers import apply_rot_embed_cat

    fixed = attention.num_prefix_tokens
    half = getattr(attention, "rotate_half", False)
    turned = apply_rot_embed_cat(key[:, :, fixed:], rope, **({"half": True} if half else {}))
    whole: Tensor = torch.cat([key[:, :, :fixed], turned], dim=2)
    return whole.to(key.dtype)


def scale_attention(maps: Tensor, scale: str, *, power: float = 1.0) -> Tensor:
    """Change the contrast of attention shares, pixel by pixel.

    Parameters
    ----------
    maps : float32 tensor of any shape
        Shares in [0, 1].
    scale : {"linear", "sqrt", "log", "power"}
        ``log`` is natural; a share that underflowed counts as the smallest normal float32, so it stays finite.
    power : float
        Exponent of ``power``.

    Returns
    -------
    float32 tensor, same shape
        NaN stays NaN.
    """
    if scale == "sqrt":
        return maps.sqrt()
    if scale == "log":
        return maps.clamp_min(torch.finfo(torch.float32).tiny).log()
    return maps.pow(power) if scale == "power" else maps


def mean_and_heads(attention: Tensor, *, heads: Sequence[int], scale: str = "linear", power: float = 1.0) -> Tensor:
    """Put the scaled heads and their mean into one stack, the mean first.

    Each head is scaled in each block, then averaged over blocks, then over heads.

    Parameters
    ----------
    attention : float32 tensor [B, blocks, H, h, w]
        As `ClassTokenAttention` returns it.
    heads : sequence of int
        Heads that are kept, in this order.
    scale, power
        As `scale_attention`.

    Returns
    -------
    float32 tensor [B, 1 + heads, h, w]
        Mean, then the kept heads.
    """
    kept = scale_attention(attention[:, :, list(heads)], scale, power=power).mean(dim=1)
    return torch.cat([kept.mean(dim=1, keepdim=True), kept], dim=1)
