"""Where the class token of a vision transformer looks: the attention maps that DiPS takes its proposals from."""

from __future__ import annotations

import json
from math import isqrt
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from wsolpipe.contract.errors import ConfigError
from wsolpipe.keys.kinds import Unit
from wsolpipe.networks.positions import is_released, own_positions, released_positions, released_side, trained_size
from wsolpipe.networks.sources import IMAGENET, choose_preprocessing, named
from wsolpipe.stages.base import StageParams
from wsolpipe.stages.map_stage import MapStage, level_arrays
from wsolpipe.stages.marks import ExecutionOnly, WeightsSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from wsolpipe.contract.schema import ArraySpec
    from wsolpipe.networks.attention import WindowAttentionShares
    from wsolpipe.networks.positions import Positions
    from wsolpipe.networks.vit import ClassTokenAttention
    from wsolpipe.stages.base import Advice, Array, Rows


#: File in which map_choice keeps what it chose.
CHOICE = "choice.json"


class ClsMapsParams(StageParams):
    """Parameters of `ClsMaps`.

    Attributes
    ----------
    model
        Name of a timm vision transformer with a class token (ViT, DeiT, BEiT, EVA), or of a Swin, whose windows are
        read
    model_args
        Arguments of timm.create_model, such as cls_maps.model_args.dynamic_img_size=true; {} for none, whatever the
        data set's YAML says
    weights
        File, timm:NAME or random:SEED; null: timm's weights of the model
    weights_part
        Network of a training checkpoint that holds several; null: the teacher of a self-distilled pair, the base
        encoder of MoCo v3
    mean
        Mean of the input, (rgb / 255 - mean) / std, one number or three; null: what the weights record, ImageNet's for
        released checkpoints of MoCo v3, SimMIM, MAE with decoder, or DINO, iBOT and EsViT with heads, else timm's value
        for the model
    std
        Standard deviation of the input, one number or three; null: as for mean
    size
        Side to which the whole image is squashed, a multiple of the patch size; auto: as map_choice finds
    positions
        How position embeddings are stretched to another size than that of training: dino (bicubic, as DINO's own code),
        timm (bicubic with antialiasing) or bilinear; null: as the code that the weights were released with, known by
        timm's name of them or by the names in the file
    blocks
        Blocks whose attention is read: null for the last, a number from 0 (negative: from the end), a list, or a range
        such as 8-11; several are averaged head by head after scaling; of a Swin in its last stage; auto: as map_choice
        finds
    heads
        Heads that are stored and averaged: null for all, a count for the first ones, or a list of numbers from 0
    scale
        Scale of each head before any mean: linear (the attention itself), sqrt, log or power; auto: as map_choice finds
    power
        Exponent of scale=power
    autocast
        Precision of the forward pass: null for float32, or bfloat16 or float16 (faster; attention scores stay float32)
    batch
        Images in one forward pass
    """

    model: str
    model_args: dict[str, Any]
    weights: Annotated[str | None, WeightsSource()]
    weights_part: Literal["teacher", "student", "base_encoder", "momentum_encoder"] | None
    mean: float | tuple[float, float, float] | None
    std: float | tuple[float, float, float] | None
    size: Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], Unit("pixels")]
    positions: Literal["dino", "timm", "bilinear"] | None
    blocks: int | str | tuple[int, ...] | None
    heads: int | tuple[int, ...] | None
    scale: Literal["linear", "sqrt", "log", "power", "auto"]
    power: Annotated[float, Field(gt=0)]
    autocast: Literal["bfloat16", "float16"] | None
    batch: Annotated[int, Field(ge=1), ExecutionOnly(), Unit("images")]

    def in_key(self) -> dict[str, Any]:
        """Return what changes the maps: ``positions`` where embeddings are stretched, ``weights_part`` where given.

        ``mean`` and ``std`` are those used unless the layout of a released checkpoint determines them.
        """
        values = super().in_key()
        values |= {name: value for name, value in self.statistics().items() if values[name] is None}
        if self.weights_part is None:
            del values["weights_part"]
        values["positions"] = self.chosen_positions()
        if values["positions"] == "timm" or self.size == self._trained_side():
            del values["positions"]
        return values

    def _trained_side(self) -> int | None:
        """Side of the training images, where the weights determine it; a file must also determine the stretching."""
        if self.timm_name():
            return trained_size(self.timm_name())
        return released_side(self._source()) if self.positions is None else None

    def chosen_positions(self) -> Positions:
        """How position embeddings are stretched: as given, else as the code that the weights came with."""
        if self.model_args.get("dynamic_img_size"):
            return "timm"  # stretched in the forward pass, by timm
        return self.positions or self._released() or "timm"

    def knows_positions(self) -> bool:
        """Whether the preprocessing is given, or known from the weights."""
        return self.positions is not None or self._released() is not None

    def _released(self) -> Positions | None:
        """Way of the code that the weights were released with, None for a file that does not tell it."""
        return own_positions(self.timm_name()) if self.timm_name() else released_positions(self._source())

    def _source(self) -> str:
        return named(self.weights, self.model)

    def statistics(self) -> dict[str, Any]:
        """``mean`` and ``std``: as given, else ImageNet's for a released checkpoint, else None."""
        given = {"mean": self.mean, "std": self.std}
        if None not in given.values() or not is_released(self._source()):
            return given
        own = dict(zip(given, IMAGENET, strict=True))
        return {name: list(own[name]) if value is None else value for name, value in given.items()}

    def timm_name(self) -> str:
        """timm's name of the weights, empty for a file."""
        kind, _, name = self._source().partition(":")
        return name if kind == "timm" else ""

    @model_validator(mode="after")
    def _agree(self) -> ClsMapsParams:
        if self.model_args.get("dynamic_img_size") and self.positions not in (None, "timm"):
            msg = f"positions={self.positions} is not for dynamic_img_size, where timm stretches in each forward pass"
            raise ValueError(msg)
        if self.weights_part is not None and str(self.weights).startswith("random:"):
            msg = f"weights_part={self.weights_part} is for a file of several networks, not for weights={self.weights}"
            raise ValueError(msg)
        return self

    def autos(self) -> tuple[str, ...]:
        """Names of the parameters that map_choice chooses."""
        return tuple(name for name in ("blocks", "scale", "size") if getattr(self, name) == "auto")

    def chosen_heads(self, available: int) -> list[int]:
        """Numbers of the heads that are kept, of `available` ones.

        Raises
        ------
        ConfigError
            If there are none, or one is twice or not there.
        """
        if self.heads is None:
            return list(range(available))
        chosen = list(range(self.heads)) if isinstance(self.heads, int) else list(self.heads)
        if not chosen or min(chosen) < 0 or max(chosen) >= available or len(set(chosen)) < len(chosen):
            msg = f"cls_maps.heads={self.heads}: {self.model} has heads 0 to {available - 1}"
            raise ConfigError(msg, hint=f"write heads=null, a count up to {available}, or a list such as [0,1]")
        return chosen


class ClsMaps(MapStage[ClsMapsParams]):
    """Class-token attention maps: the mean of the scaled heads, then each head, at the model's own resolution.

    A Swin has no class token: its maps are the shares of attention that cells receive in the windows of its last stage.

    A row whose maps are not finite (overflow in half precision, broken weights) is quarantined.

    References
    ----------
    Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021; candidates of DiPS: thesis,
    chapter 2, algorithm 2.1.
    """

    stage = "cls_maps"
    maps_are = "attention maps"

    reader: ClassTokenAttention | WindowAttentionShares
    heads: list[int]
    device: torch.device
    _mean: torch.Tensor
    _std: torch.Tensor

    @classmethod
    def needs(cls, params: ClsMapsParams, declared: tuple[str, ...]) -> tuple[str, ...]:
        """The choice, where a parameter is auto."""
        return declared if params.autos() else ()

    @classmethod
    def weights_needed(cls, params: ClsMapsParams) -> dict[str, str]:
        """The transformer's weights, under the name ``model``."""
        return {"model": named(params.weights, params.model)}

    @classmethod
    def advice(cls, params: ClsMapsParams) -> tuple[Advice, ...]:
        """Several blocks on a logarithmic scale, then another transformer."""
        depth = params.model_args.get("depth", 12)
        words = [f"cls_maps.blocks={depth - max(depth // 3, 2)}-{depth - 1}"] if params.blocks is None else []
        words += ["cls_maps.scale=log"] if params.scale != "log" else []
        why = "attention of several blocks, in which a few strong patches do not hide the others"
        if params.blocks is not None:
            why = "a few strong patches then do not hide the others"
        found = ((" ".join(words), why),) if words else ()
        return (*found, ("cls_maps.model=…", "another self-supervised transformer, or its published weights"))

    def setup(self) -> None:
        """Build the transformer and load its weights.

        Raises
        ------
        ConfigError
            If the model, its blocks or its heads are not there, or it sees the image as a single cell.
        WeightsError
            If the weights do not fit it.
        """
        import torch

        from wsolpipe.networks.vit import build_vit, unread_keys
        from wsolpipe.networks.weights import HEAD_KEYS, is_sincos, load_into, load_state, stretches

        if self.params.autos():
            chosen_way = json.loads((self.context.artifacts["map_choice"] / CHOICE).read_text(encoding="utf-8"))
            self.params = self.params.model_copy(update={name: chosen_way[name] for name in self.params.autos()})
        params, weights = self.params, self.context.weights["model"]
        self.side = int(params.size)
        vit = build_vit(
            params.model, size=self.side, model_args=params.model_args, seed=weights.seed or 0, windows=True
        )
        self.reader = self._reader_of(vit)
        if self.reader.grid((self.side, self.side)) == (1, 1):
            msg = f"cls_maps.size={params.size} leaves {params.model} a single cell, too few for a map"
            raise ConfigError(msg, hint="give a larger cls_maps.size, such as 224")
        self.heads = params.chosen_heads(self.reader.heads)
        if not hasattr(self.reader.vit, "blocks"):
            self._say_grid()
        if weights.path is not None:
            state = load_state(weights, part=params.weights_part)
            self._look_for_moco(vit, state)
            ignored = (*HEAD_KEYS, *unread_keys(vit))
            load_into(vit, state, what=params.model, ignore=ignored, positions=params.chosen_positions())
            if stretches(vit, state) and not params.knows_positions() and not is_sincos(state):
                self._refuse_positions(weights.source, state)
        chosen = choose_preprocessing(
            weights, model=params.model, **params.statistics(), stage="cls_maps", warn=self.context.warn
        )
        self.device = device = torch.device(self.context.device)
        self.reader.to(device)
        # uint8 levels in, so the mean and deviation are kept on the scale 0..255.
        self._mean = torch.tensor(chosen.mean, device=device).view(3, 1, 1) * 255
        self._std = torch.tensor(chosen.std, device=device).view(3, 1, 1) * 255

    def _reader_of(self, vit: Any) -> ClassTokenAttention | WindowAttentionShares:
        from wsolpipe.networks.attention import WindowAttentionShares, is_windowed
        from wsolpipe.networks.vit import ClassTokenAttention, block_numbers

        if is_windowed(vit):
            return WindowAttentionShares(vit, block_numbers(self.params.blocks, len(vit.layers[-1].blocks)))
        return ClassTokenAttention(vit, block_numbers(self.params.blocks, len(vit.blocks)), model=self.params.model)

    def _look_for_moco(self, vit: Any, state: Mapping[str, torch.Tensor]) -> None:
        """Say so where a file of MoCo v3's small transformer meets timm's, whose tensors have the same shapes."""
        from wsolpipe.networks.weights import is_sincos

        if is_sincos(state) and self.reader.heads == 6 and getattr(vit, "embed_dim", 0) == 384:
            self.context.warn(
                "these weights look like MoCo v3's ViT-S, which has 12 heads where timm's has 6; if they are, set "
                "cls_maps.model_args.num_heads=12"
            )

    def _refuse_positions(self, source: str, state: Mapping[str, torch.Tensor]) -> None:
        """Refuse to stretch the embeddings of a file that could be of several authors."""
        cells, size = isqrt(state["pos_embed"].shape[1]), self.side
        trained = cells * int(state["patch_embed.proj.weight"].shape[-1])
        msg = (
            f"position embeddings of {source} are for {cells} x {cells} patches ({trained} pixels); "
            f"cls_maps.size={size} stretches them, and the names in the file fit authors who do so in two ways"
        )
        hint = (
            "set cls_maps.positions=dino for DINO, iBOT and DINOv2 without registers, cls_maps.positions=timm for any "
            f"other network, or cls_maps.size={trained}"
        )
        raise ConfigError(msg, hint=hint)

    def _say_grid(self) -> None:
        """Say for which grid a Swin is built, where its windows are not those of training."""
        block, trained = self.reader.vit.layers[-1].blocks[-1], trained_size(self.params.model)
        if trained is None or trained == self.side or not any(block.shift_size):
            return
        rows, columns = block.input_resolution
        window, shift = block.window_size[0], block.shift_size[0]
        self.context.warn(
            f"{self.params.model} is built for {self.side} pixels: {rows} x {columns} cells in its last stage, in "
            f"windows of {window}, and every second block shifts them by {shift}; EsViT's own code builds it for "
            f"{trained} pixels whatever the image, and shifts none there"
        )

    def arrays(self) -> dict[str, ArraySpec]:
        """Declare the arrays that the class describes: maps and their range."""
        count = 1 + len(self.heads)
        grid = self.reader.grid((self.side, self.side))
        scaled = {"linear": "attention", "power": f"attention^{self.params.power:g}"}
        unit = scaled.get(self.params.scale, f"{self.params.scale} of attention")
        meaning = f"{self.reader.reads}: mean of the scaled heads, then each head; min-max per map"
        return level_arrays(count, grid, meaning, unit)

    def targets_of(self, rows: Rows) -> list[None]:
        """Nothing: the maps belong to no class."""
        return [None] * len(rows)

    def make_maps(self, pixels: Array, targets: Sequence[None], numbers: Sequence[int]) -> tuple[Array, None]:  # noqa: ARG002
        """`attend`, whose maps belong to no class."""
        return self.attend(pixels), None

    def normalise(self, pixels: Array) -> torch.Tensor:
        """Input of the transformer, float32 [B, 3, S, S] on its device, from uint8 [B, S, S, 3]."""
        import torch

        images = torch.from_numpy(pixels).to(self._mean.device).permute(0, 3, 1, 2).float()
        return images.sub_(self._mean).div_(self._std)

    def attention(self, pixels: Array) -> torch.Tensor:
        """Attention of the blocks that are read, float32 [B, blocks, H, h, w], of pixels uint8 [B, S, S, 3]."""
        import torch

        kind = self.params.autocast
        with torch.inference_mode():
            images = self.normalise(pixels)
            with torch.autocast(images.device.type, dtype=getattr(torch, kind or "bfloat16"), enabled=kind is not None):
                found: torch.Tensor = self.reader(images)
        return found

    def attend(self, pixels: Array) -> Array:
        """Maps before storage.

        Parameters
        ----------
        pixels : uint8 array [B, S, S, 3]
            RGB.

        Returns
        -------
        float32 array [B, 1 + heads, h, w]
            Mean of the scaled heads, then each head.
        """
        import torch

        from wsolpipe.networks.attention import mean_and_heads

        attention = self.attention(pixels)
        with torch.inference_mode():
            maps = mean_and_heads(attention, heads=self.heads, scale=self.params.scale, power=self.params.power)
            return np.asarray(maps.cpu().numpy())
