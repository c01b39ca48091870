"""Vision transformers whose patch tokens are classified: a map of scores a class, and the class token's attention.

TS-CAM (Gao et al., ICCV 2021) puts a convolution 3 x 3 on the patch tokens in place of the linear head; SCM, SAT and
MOLT build on it. Networks are timm's plain vision transformers with that convolution as ``head``, so their tensors have
the names of the published checkpoints: ``cls_token``, ``pos_embed``, ``blocks.…``, ``norm.…``, ``head.…``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.architectures import build_backbone, classifier_keys
from wsolpipe.networks.attention import class_token_row_of, heads_of
from wsolpipe.networks.sources import resolve
from wsolpipe.networks.vit import block_numbers, require_tiling, require_tokens
from wsolpipe.networks.weights import HEAD_KEYS, load_into, load_state
from wsoltrain.networks.backbone import BackboneKeys, hooked, is_convolutional, require_layout, require_tensors

HEAD = "head.weight"
_log = logging.getLogger(__name__)


class TokenMaps(NamedTuple):
    """Tokens and maps of a batch of images.

    Attributes
    ----------
    classes : float Tensor [B, C, h, w]
        Class scores of each patch.
    attention : float32 Tensor [B, h, w] or None
        Attention of the class token to each patch, averaged over heads and summed over blocks; where asked for.
    """

    classes: Tensor
    attention: Tensor | None

    @property
    def scores(self) -> Tensor:
        """Class logits [B, C]: means of the class maps."""
        return self.classes.mean((2, 3))


def build_token_network(
    keys: BackboneKeys,
    *,
    size: int,
    classes: int,
    add: Callable[[Any], None] | None = None,
    size_key: str = "size",
    **fixed: Any,
) -> Any:
    """Build a timm vision transformer that classifies its patch tokens, and load its weights.

    A file is either that of a plain transformer, whose own classifier is left out, or a checkpoint of the method, whose
    convolution is loaded with everything else. Parts that a file holds are loaded whole or refused; a warning names
    further parts of the method of which it holds nothing, such as the blocks of SCM in a file of TS-CAM.

    Parameters
    ----------
    keys : BackboneKeys
        Network and weights.
    size : int
        Side of the input, pixels; position embeddings are resampled to its grid (bicubic).
    classes : int
        Outputs.
    add : callable, optional
        Gives the network further parts before weights are loaded.
    size_key : str
        Recipe key that gives the size, for messages.
    **fixed
        Further arguments of ``timm.create_model``.

    Raises
    ------
    ConfigError
        If the network is not a plain vision transformer with one class token, or its patches do not tile the input.
    WeightsError
        If the weights are missing or do not fit, such as those of another method or number of classes.
    """
    what = f"backbone={keys.backbone}"
    found = None if keys.weights is None else resolve(keys.weights, model=keys.backbone)
    drawn = keys.weights if found is not None and found.path is None else None
    net = build_backbone(keys.backbone, weights=drawn, model_args=keys.model_args, img_size=size, **fixed)
    _require_plain(net, what)
    require_tiling(net, what, size, key=size_key)
    plain = set(net.state_dict())
    net.head = nn.Conv2d(net.embed_dim, classes, 3, padding=1)
    before = set(net.state_dict())
    if add is not None:
        add(net)
    if found is not None and found.path is not None:
        state, own = load_state(found), net.state_dict()
        constant = {name for name in own.keys() - before if name in dict(net.named_buffers())}
        added = own.keys() - before - constant
        ignored: tuple[str, ...] = ()
        anew = constant if added & state.keys() else constant | added
        if is_convolutional(state) or (HEAD in state and state[HEAD].ndim == net.head.weight.ndim):
            source = f"weights={keys.weights}"
            words = require_layout(state, own, source, begins={name: own[name] for name in before})
            state = {**{name: own[name] for name in anew}, **state}
            require_tensors(state, own, source, words, stretched="pos_embed")
            if added and added <= anew:
                _log.warning("%s holds no %s: these parts start anew", source, ", ".join(sorted(added)))
        else:
            ignored, anew = (*HEAD_KEYS, *classifier_keys(keys.backbone)), anew | (before - plain)
            kept = {name: value for name, value in state.items() if not name.startswith(ignored)}
            state = {**{name: own[name] for name in anew}, **kept}
        load_into(net, state, what=keys.backbone, ignore=ignored)
    return net


def _require_plain(net: Any, what: str) -> None:
    require_tokens(net, what, attention=True)
    for number, block in enumerate(net.blocks):
        kinds = type(block).__name__, type(block.attn).__name__
        if kinds != ("Block", "Attention") or block.attn.gate is not None:
            msg = f"{what} cannot classify its patches: block {number} is {kinds[0]} with {kinds[1]}"
            raise ConfigError(msg, hint="backbone=deit_small_patch16_224, or another plain vision transformer")
    if not isinstance(net.patch_drop, nn.Identity):
        msg = f"{what} cannot classify its patches: model_args.patch_drop_rate leaves some of them out"
        raise ConfigError(msg, hint="leave model_args.patch_drop_rate out")


def read_token_maps(
    net: Any, images: Tensor, *, attention: bool, blocks: int | str | Sequence[int] | None = None
) -> TokenMaps:
    """Run a network of `build_token_network`.

    Parameters
    ----------
    net : nn.Module
        The network.
    images : float Tensor [B, 3, H, W]
        Normalised.
    attention : bool
        Give the class token's attention too, from the queries and keys that each block multiplies.
    blocks : optional
        Blocks whose attention is summed, as in `wsolpipe.networks.vit.block_numbers`; None for all.

    Raises
    ------
    ConfigError
        If the network has no such block.
    """
    if not attention:
        return TokenMaps(net.head(patch_grid(net, images, net.forward_features(images))), None)
    with _class_token_rows(net) as rows:
        patches = patch_grid(net, images, net.forward_features(images))
    chosen = range(len(rows)) if blocks is None else block_numbers(blocks, len(rows))
    shares = torch.stack([rows[number].mean(1) for number in chosen]).sum(0)[:, net.num_prefix_tokens :]
    return TokenMaps(net.head(patches), shares.reshape(shares.shape[0], *patches.shape[-2:]))


def patch_grid(net: Any, images: Tensor, tokens: Tensor) -> Tensor:
    """Patch tokens [B, D, h, w] of tokens [B, 1 + h w (+ more), D] of images [B, 3, H, W]."""
    rows, columns = net.patch_embed.dynamic_feat_size(images.shape[-2:])
    first = net.num_prefix_tokens
    patches = tokens[:, first : first + rows * columns]
    return patches.transpose(1, 2).reshape(tokens.shape[0], -1, rows, columns)


@contextmanager
def _class_token_rows(net: Any) -> Iterator[list[Tensor]]:
    """Collect the class token's attention [B, heads, N] of each block of the network while the ``with`` block runs."""
    rows: list[Tensor] = []
    queries: list[Tensor] = []

    def keep_query(_layer: Any, _given: Any, query: Tensor) -> None:
        queries.append(query)

    def collector(layer: Any) -> Callable[..., None]:  # the layer norms its query first, then its key
        return lambda _, given, key: rows.append(class_token_row_of(layer, queries.pop(), key))  # noqa: ARG005 - torch's

    layers = [block.attn for block in net.blocks]
    with hooked([(a.q_norm, keep_query) for a in layers] + [(a.k_norm, collector(a)) for a in layers]):
        yield rows


def masked_block(block: Any, tokens: Tensor, *, prefix: int) -> tuple[Tensor, Tensor]:
    """Run a timm ``Block`` whose attention the last token masks (SAT: Wu et al., "Spatial-aware token", ICCV 2023).

    The last token's logits, averaged over heads, go through a sigmoid; what each query gives to a key is multiplied by
    that key's mask, after the softmax and without normalising again. As (A * m) v = A (m * v), fused attention computes
    it.

    Parameters
    ----------
    tokens : float Tensor [B, N, D]
        The spatial token is the last one.
    prefix : int
        Tokens before the patches.

    Returns
    -------
    tokens : float Tensor [B, N, D]
    mask : float32 Tensor [B, N]
        In 0..1, of each key.
    """
    layer = block.attn
    query, key, value = heads_of(layer, layer.qkv(block.norm1(tokens)), prefix=prefix)
    with torch.autocast(tokens.device.type, enabled=False):  # the mask is the localizer's result
        logits = (query[:, :, -1:].float() * layer.scale * key.float()).sum(3)  # faster than products of one row
        mask = logits.mean(1).sigmoid()  # [B, N]
    dropout = layer.attn_drop.p if layer.training else 0.0
    value = value * mask[:, None, :, None].to(value.dtype)
    mixed = scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=layer.scale)
    mixed = layer.norm(mixed.transpose(1, 2).flatten(2))
    tokens = tokens + block.drop_path1(block.ls1(layer.proj_drop(layer.proj(mixed))))
    return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens)))), mask
