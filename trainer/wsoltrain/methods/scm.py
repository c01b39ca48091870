"""SCM (Bai et al., "… via transformer with implicit spatial calibration", ECCV 2022).

TS-CAM with blocks after it in training, which spread class maps and attention over regions of like cells; the network
learns what they would do, and prediction goes without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from wsolpipe.contract.errors import ConfigError
from wsoltrain.methods.base import Prediction, map_of_class
from wsoltrain.methods.ts_cam import TokenMethod
from wsoltrain.networks.backbone import BackboneKeys
from wsoltrain.networks.calibration import Calibration
from wsoltrain.networks.token_maps import read_token_maps, scaled_to_unit

if TYPE_CHECKING:
    from wsoltrain.networks.token_maps import TokenMaps


class ScmKeys(BackboneKeys):
    """Keys of SCM."""

    iterations: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        (16, 4, 4, 4),
        min_length=1,
        description="Newton-Schulz steps of each calibration block in training, a number a block (as released)",
    )


class Scm(TokenMethod[ScmKeys]):
    """TS-CAM that is trained through calibration blocks."""

    Keys = ScmKeys

    def add_parts(self, net: Any) -> None:
        """Add the blocks, by the names of published checkpoints."""
        rows, columns = net.patch_embed.grid_size
        if rows != columns:
            msg = f"backbone={self.keys.backbone} has a grid of {rows} x {columns} patches, and SCM needs a square one"
            raise ConfigError(msg, hint="a backbone with square patches, or method=ts_cam")
        net.layers = nn.ModuleList(Calibration((rows, columns), steps) for steps in self.keys.iterations)

    def train_scores(self, image: Tensor) -> Tensor:
        """Class logits [B, C] after the blocks."""
        maps = read_token_maps(self.net, image, attention=True)
        with torch.autocast(image.device.type, enabled=False):  # each step of the iteration squares what rounding left
            classes, attention = maps.classes.float(), unit_attention(maps)
            for layer in self.net.layers:
                classes, attention = layer(classes, attention)
            return classes.mean((2, 3))

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the class's score map times attention in 0..1, both without the blocks, and class logits."""
        maps = read_token_maps(self.net, image, attention=True)
        scores = maps.scores
        return Prediction(map_of_class(maps.classes, labels, scores) * unit_attention(maps), False, scores)


def unit_attention(maps: TokenMaps) -> Tensor:
    """Attention [B, h, w], each map between its own lowest and highest value."""
    assert maps.attention is not None  # noqa: S101 - asked for
    return scaled_to_unit(maps.attention)
