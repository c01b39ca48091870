"""Access to the parts of attention layers: q, k and v, softmax(scale · q·kᵀ), and the class token's row of it.

Fused attention returns no weights, so q and k are taken explicitly. timm's ``Attention`` (of BEiT too, with its
relative positions), ``AttentionRope``, ``EvaAttention`` and ``WindowAttention`` are known here; tokens are float
[B, N, C], heads [B, H, N, d].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from wsolpipe.contract.errors import ConfigError

Heads = tuple["Tensor", "Tensor", "Tensor"]


def split_heads(joint: Tensor, heads: int) -> Heads:
    """q, k and v side by side, [B, N, 3C], as [B, heads, N, d] each."""
    query, key, value = joint.reshape(*joint.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4).contiguous()
    return query, key, value


def attention_weights(query: Tensor, key: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    """softmax(scale · q·kᵀ + bias), [B, H, N, N]; rows sum to one."""
    scores = (query * scale) @ key.mT
    return (scores if bias is None else scores + bias).softmax(dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return what the heads gather, and their attention averaged over heads.

    On a processor an image a thread at a time, whose weights stay in the cache; the result is the same to the bit.

    Parameters
    ----------
    query, key, value : float tensor [B, H, N, d]
    scale : float
        Factor of q·k.

    Returns
    -------
    gathered : float tensor [B, H, N, d]
    attention : float tensor [B, N, N]
        Without graph; rows sum to one.
    """
    together = torch.get_num_threads() if query.device.type == "cpu" else len(query)
    gathered, means = [], []
    for queries, keys, values in zip(*(torch.split(each, together) for each in (query, key, value)), strict=True):
        weights = attention_weights(queries, keys, scale)
        gathered.append(weights @ values)
        means.append(weights.detach().mean(dim=1))
    return torch.cat(gathered), torch.cat(means)


def relative_positions(layer: Any) -> Tensor | None:
    """Return what a layer adds to its scores by the places of two tokens, float [1, H, N, N], or None."""
    table = getattr(layer, "relative_position_bias_table", None)
    return None if table is None else layer._get_rel_pos_bias()


def joint_weight(layer: Any) -> Tensor:
    """Weight [3C, C] of timm's joint projection, or of the three stacked."""
    if layer.qkv is not None:
        return cast("Tensor", layer.qkv.weight)
    return torch.cat([part.weight for part in (layer.q_proj, layer.k_proj, layer.v_proj)])


def joint_projection(layer: Any, tokens: Tensor) -> Tensor:
    """q, k and v of a timm layer side by side, [B, N, 3C], from its joint or its separate projections."""
    if layer.qkv is None:
        return torch.cat([part(tokens) for part in (layer.q_proj, layer.k_proj, layer.v_proj)], dim=-1)
    bias = layer.qkv.bias
    if bias is None and getattr(layer, "q_bias", None) is not None:
        bias = torch.cat((layer.q_bias, layer.k_bias, layer.v_bias))
    return linear(tokens, layer.qkv.weight, bias)


def heads_of(layer: Any, joint: Tensor, *, prefix: int, rope: Tensor | None = None) -> Heads:
    """q, k and v of a timm layer from `joint_projection`, normalised where the layer does so.

    Parameters
    ----------
    layer : nn.Module
    joint : float tensor [B, N, 3C]
    prefix : int
        Tokens before the patches; the rotary embedding does not turn them.
    rope : float tensor, optional
        Rotary embedding of the patches.
    """
    query, key, value = split_heads(joint, layer.num_heads)
    query, key = layer.q_norm(query), layer.k_norm(key)
    if rope is not None:
        query, key = (_turn(layer, part, rope, prefix=prefix) for part in (query, key))
    return query, key, value


def _turn(layer: Any, heads: Tensor, rope: Tensor, *, prefix: int) -> Tensor:
    """Apply a rotary embedding to the patches of [B, H, N, d]."""
    from timm.layers import apply_rot_embed_cat

    half = {"half": True} if getattr(layer, "rotate_half", False) else {}
    turned = apply_rot_embed_cat(heads[:, :, prefix:], rope, **half)
    return torch.cat([heads[:, :, :prefix], turned], dim=2).to(heads.dtype)


def class_token_row(attention: Any, tokens: Tensor, *, rope: Tensor | None = None) -> Tensor:
    """First row of softmax(scale · q·kᵀ) of one attention layer; of the N x N matrix nothing else is computed.

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
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    if rope is not None:
        key = _turn(attention, key, rope, prefix=attention.num_prefix_tokens)
    if key.shape[1] != query.shape[1]:  # grouped-query attention: head h uses key head h // group
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    places = relative_positions(attention)
    return _row(attention, query, key, None if places is None else places[:, :, :1])


def shares_of_windows(layer: Any, windows: Tensor, mask: Tensor | None = None) -> Tensor:
    """Share of attention that each token of a window receives, averaged over the window's queries, head by head.

    Parameters
    ----------
    layer : nn.Module
        timm's ``WindowAttention``.
    windows : float tensor [W, N, C]
        Input of the layer: the windows of each image after one another.
    mask : float tensor [windows of an image, N, N], optional
        What the block adds to scores of tokens that are not neighbours, where windows are shifted.

    Returns
    -------
    float32 tensor [W, heads, N]
        Sums to one over a window.
    """
    query, key, _ = split_heads(layer.qkv(windows), layer.num_heads)
    places = relative_positions(layer)
    with torch.autocast(windows.device.type, enabled=False):  # these numbers are the result
        bias = places if places is None else places.float()
        if mask is not None:
            around = mask[:, None].float().repeat(len(windows) // len(mask), 1, 1, 1)
            bias = around if bias is None else bias + around
        return attention_weights(query.float(), key.float(), layer.scale, bias).mean(dim=-2)


def class_token_row_of(attention: Any, query: Tensor, key: Tensor) -> Tensor:
    """First row of softmax(scale · q·kᵀ) from the heads that a layer multiplies, which are not computed again.

    Parameters
    ----------
    attention : nn.Module
        timm's ``Attention``.
    query, key : float tensor [B, heads, N, d]
        Outputs of its ``q_norm`` and ``k_norm``, the class token first.

    Returns
    -------
    float32 tensor [B, heads, N]
        Rows sum to one.
    """
    return _row(attention, query[:, :, :1], key)


def _row(attention: Any, query: Tensor, key: Tensor, bias: Tensor | None = None) -> Tensor:
    """Weights [B, heads, N] of one query [B, heads, 1, d] on all keys [B, heads, N, d]."""
    with torch.autocast(key.device.type, enabled=False):  # these numbers are the result
        bias = None if bias is None else bias.float()
        return attention_weights(query.float(), key.float(), attention.scale, bias).squeeze(-2)


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


_HINT = "name a plain vision transformer with a class token, such as vit_small_patch16_224.dino"


class WindowAttentionShares(nn.Module):
    """Share of attention that each cell of the last stage receives, for chosen blocks of a timm Swin transformer.

    Parameters
    ----------
    swin : nn.Module
        Its weights are shared, not copied.
    blocks : sequence of int
        Ascending numbers of blocks of the last stage.
    """

    reads: ClassVar[str] = "share of attention that each cell receives in the windows of the last stage"
    vit: Any

    def __init__(self, swin: nn.Module, blocks: Sequence[int]) -> None:
        super().__init__()
        self.vit = swin
        self.blocks = tuple(blocks)
        self.heads = int(self.vit.layers[-1].blocks[self.blocks[-1]].attn.num_heads)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:  # noqa: ARG002 - a Swin is built for one size
        """Rows and columns of the last stage."""
        rows, columns = self.vit.layers[-1].blocks[-1].input_resolution
        return int(rows), int(columns)

    def forward(self, images: Tensor) -> Tensor:
        """Read the shares.

        Parameters
        ----------
        images : float tensor [B, 3, H, W]
            Normalised as the model expects.

        Returns
        -------
        float32 tensor [B, blocks, heads, h, w]
            A map sums to the number of windows.
        """
        cells = self.vit.patch_embed(images)
        for stage in self.vit.layers[:-1]:
            cells = stage(cells)
        cells = self.vit.layers[-1].downsample(cells)
        maps = []
        for number, block in enumerate(self.vit.layers[-1].blocks):
            if number in self.blocks:
                maps.append(_shares(block, block.norm1(cells)))
            if number == self.blocks[-1]:
                break
            cells = block(cells)
        return torch.stack(maps, dim=1)


def _shares(block: Any, cells: Tensor) -> Tensor:
    """Maps [B, heads, h, w] of one block, of its normalised input [B, h, w, C]."""
    (down, across), (tall, wide) = block.shift_size, block.window_size
    batch, height, width, channels = cells.shape
    moved = cells.roll((-down, -across), dims=(1, 2))
    parts = moved.reshape(batch, height // tall, tall, width // wide, wide, channels).transpose(2, 3)
    shares = shares_of_windows(block.attn, parts.reshape(-1, tall * wide, channels), block.attn_mask)
    placed = shares.reshape(batch, height // tall, width // wide, -1, tall, wide).permute(0, 3, 1, 4, 2, 5)
    return placed.reshape(batch, -1, height, width).roll((down, across), dims=(2, 3))


def is_windowed(net: nn.Module) -> bool:
    """Whether a network is a Swin transformer of timm (the first version, whose scores are scale · q·kᵀ + bias)."""
    return type(net).__name__ == "SwinTransformer"


def require_windows(net: Any, model: str, size: int) -> None:
    """Refuse a Swin transformer whose last stage's windows do not tile it.

    Raises
    ------
    ConfigError
        Names the nearest sizes that do.
    """
    block = net.layers[-1].blocks[-1]
    if getattr(block, "dynamic_mask", False):
        msg = f"{model} is built for any size; its windows cannot be put back to their places"
        raise ConfigError(msg, hint="leave out model_args.dynamic_img_size and strict_img_size")
    for cells, window in zip(block.input_resolution, block.window_size, strict=True):
        if cells % window:
            step = net.patch_embed.patch_size[0] * 2 ** (len(net.layers) - 1) * window
            below = size // step * step
            near = " or ".join(str(side) for side in (below, below + step) if side)
            msg = f"size={size} gives {model} {cells} cells a side, which windows of {window} do not tile"
            raise ConfigError(msg, hint=f"set size={near}")
