"""Encoders of timm: frozen vision transformers with the tokens that heads read; weights from a file or the cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.images.dataset import data_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

LAST = 4
"""Blocks whose class tokens the class head reads."""


class Tokens(NamedTuple):
    """What a frozen transformer says of a batch.

    Attributes
    ----------
    patches : float Tensor [B, D, h, w]
        Patch tokens after the last norm.
    classes : float Tensor [B, LAST * D]
        Class tokens of the last blocks, each after that norm.
    attention : float Tensor [B, heads * (1 + h w), h, w] or None
        Last block: how much each query (class token first) looks at each patch; where asked for.
    """

    patches: Tensor
    classes: Tensor
    attention: Tensor | None


class FrozenVit(nn.Module):
    """A vision transformer that is read and never trained.

    Parameters
    ----------
    name : str
        Of timm, with a class token and fused q, k, v.
    weights : str or None
        A .safetensors file; ``"data:FILE"`` for one that comes with wsolpipe's data sets; ``"timm"`` for pretrained
        weights from the cache or the net; None for random ones.
    size : int
        Side of the input.
    model_args : mapping, optional
        Further arguments of the timm model, for one that has no name of its own.
    attention : bool
        Give the last block's attention too.

    Raises
    ------
    ConfigError
        If timm has no such model, or it is no such transformer.
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
        self.vit = create(name, weights=weights, img_size=size, **(model_args or {}))
        if not hasattr(self.vit, "blocks") or getattr(self.vit, "num_prefix_tokens", 0) != 1:
            msg = f"backbone={name} is no vision transformer with one class token"
            raise ConfigError(msg, hint="backbone=vit_small_patch16_224")
        self.width: int = self.vit.embed_dim
        self.heads: int = self.vit.blocks[-1].attn.num_heads
        self.cells: int = self.vit.patch_embed.num_patches
        self.patch: int = self.vit.patch_embed.patch_size[0]
        self.wants_attention = attention
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenVit:  # noqa: FBT001, FBT002 - torch's signature
        """Stay in evaluation mode."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tokens:
        """Tokens of normalised images [B, 3, S, S]."""
        seen: dict[str, Tensor] = {}
        block = self.vit.blocks[-1]
        hook = block.attn.register_forward_pre_hook(lambda _, given: seen.update(last=given[0]))
        try:
            features = self.vit.forward_intermediates(
                image, indices=LAST, return_prefix_tokens=True, norm=True, intermediates_only=True
            )
        finally:
            hook.remove()
        patches = features[-1][0]
        classes = torch.cat([prefix[:, 0] for _, prefix in features], 1)
        attention = self._attention(block.attn, seen["last"], patches.shape[-2:]) if self.wants_attention else None
        return Tokens(patches, classes, attention)

    def _attention(self, layer: Any, given: Tensor, grid: torch.Size) -> Tensor:
        """Softmax of q·k of the last block, all queries by patch keys; fused attention gives no weights."""
        batch, count, _ = given.shape
        q, k, _ = layer.qkv(given).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = ((layer.q_norm(q) * layer.scale) @ layer.k_norm(k).mT).softmax(-1)[..., 1:]
        channels: Tensor = weights.flatten(1, 2).reshape(batch, -1, *grid)
        return channels


def create(name: str, *, weights: str | None, **more: Any) -> Any:
    """Make a timm model without its classifier and give it weights.

    Raises
    ------
    ConfigError, WeightsError
        As `FrozenVit`.
    """
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0].split('.')[0]}*")[:5]
        msg = f"timm knows no model {name}"
        raise ConfigError(msg, hint=f"near: {', '.join(near)}" if near else "see timm.list_models()")
    try:
        model = timm.create_model(name, pretrained=weights == "timm", num_classes=0, **more)
    except (RuntimeError, OSError) as error:
        msg = f"pretrained weights of {name} cannot be had: {error}"
        raise WeightsError(msg, hint="weights=FILE.safetensors") from error
    if weights not in (None, "timm"):
        _load(model, str(weights), name)
    return model


def _load(model: nn.Module, path: str, name: str) -> None:
    from safetensors.torch import load_file

    if path.startswith("data:"):
        path = str(data_folder() / path.removeprefix("data:"))
    if not Path(path).is_file():
        msg = f"no weights file {path}"
        raise WeightsError(msg, hint="weights=FILE.safetensors, or weights=timm")
    own = model.state_dict()
    given = {key: value.to(torch.float32) for key, value in load_file(path).items() if key in own}
    if "pos_embed" in given and given["pos_embed"].shape != own["pos_embed"].shape:
        given["pos_embed"] = _fitted(given["pos_embed"], model)
    missing = sorted(own.keys() - given.keys())
    wrong = [key for key, value in given.items() if value.shape != own[key].shape]
    if missing or wrong:
        msg = f"{path} does not fit {name}: {_shown('missing', missing)}{_shown('of another shape', wrong)}"
        raise WeightsError(msg, hint="name the model that the file was saved from")
    model.load_state_dict(given)


def _fitted(embedding: Tensor, model: Any) -> Tensor:
    """Position embedding of another image size, resampled to the model's grid as timm does."""
    from timm.layers import resample_abs_pos_embed

    tokens = model.num_prefix_tokens
    cells = embedding.shape[1] - tokens
    if embedding.shape[-1] != model.embed_dim or round(cells**0.5) ** 2 != cells:
        return embedding  # of another model: refused with the rest
    grid = list(model.patch_embed.grid_size)
    fitted: Tensor = resample_abs_pos_embed(embedding, new_size=grid, num_prefix_tokens=tokens)
    return fitted


def _shown(what: str, names: list[str]) -> str:
    return f"{len(names)} tensors {what} ({', '.join(names[:3])}) " if names else ""


def frozen(values: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Leave out of a state what belongs to a frozen encoder."""
    return {name: value for name, value in values.items() if not name.startswith(prefix)}
