"""SCM (Bai et al., "… via transformer with implicit spatial calibration", ECCV 2022).

TS-CAM with blocks after it in training, which spread class maps and attention over regions of like cells; the network
learns what they would do, and prediction goes without them.

A block spreads maps along the grid where neighbouring cells agree on their classes. The similarity of cells and the
graph of neighbours make a matrix X; a few steps of Newton-Schulz towards its inverse filter the map. They are not
replaced by an exact solve: X may be singular, and n steps are the filter s -> (1 - (1 - 0.002 s^2)^(2^n)) / s of its
singular values, which is what was published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize, tanhshrink

from wsolpipe.contract.errors import ConfigError
from wsoltrain.data.views import scaled_to_unit
from wsoltrain.methods.base import Prediction, map_of_class
from wsoltrain.methods.ts_cam import TokenMethod
from wsoltrain.networks.backbone import BackboneKeys
from wsoltrain.networks.token_maps import read_token_maps

if TYPE_CHECKING:
    from wsoltrain.networks.token_maps import TokenMaps


FIRST_STEP = 0.002
"""Factor of the transposed matrix, where the iteration begins."""


def grid_laplacian(rows: int, columns: int) -> Tensor:
    """Degrees minus adjacency of a grid's cells, row by row, each joined to 4 neighbours: float32 [N, N]."""
    cells = torch.arange(rows * columns).view(rows, columns)
    adjacent = torch.zeros(rows * columns, rows * columns)
    for first, second in ((cells[:, :-1], cells[:, 1:]), (cells[:-1], cells[1:])):
        adjacent[first.flatten(), second.flatten()] = 1
    adjacent = adjacent + adjacent.T
    return torch.diag(adjacent.sum(0)) - adjacent


def newton_schulz(matrices: Tensor, steps: int) -> Tensor:
    """Truncated Newton-Schulz iteration Y <- Y (2 I - X Y) towards the inverse of X, from 0.002 X^T.

    Parameters
    ----------
    matrices : float32 Tensor [B, N, N]
        X. No gradient flows through the beginning, as in the released code.
    steps : int
        Of the iteration.

    Returns
    -------
    float32 Tensor [B, N, N]
    """
    inverse = FIRST_STEP * matrices.detach().mT
    for _ in range(steps):
        inverse = 2 * inverse - inverse @ (matrices @ inverse)
    return inverse


class Fuse(nn.Module):
    """The matrix that spreads a map; `_loss_rate` is the weight of similarity, by the name of published checkpoints.

    Parameters
    ----------
    grid : two ints
        Rows and columns of cells.
    steps : int
        Of `newton_schulz`.
    """

    laplacian: Tensor

    def __init__(self, grid: tuple[int, int], steps: int) -> None:
        super().__init__()
        self.steps = steps
        self._loss_rate = nn.Parameter(torch.ones(1))
        self.register_buffer("laplacian", grid_laplacian(*grid), persistent=False)

    def forward(self, similarity: Tensor) -> Tensor:
        """Return the matrix [B, N, N] for the similarity of cells [B, N, N]."""
        return newton_schulz(self.laplacian * (self._loss_rate * similarity - 1), self.steps).mT


class Calibration(nn.Module):
    """One block: class maps and a map of attention, both drawn towards regions of like cells.

    Parameters
    ----------
    grid : two ints
        Rows and columns of cells.
    steps : int
        Of `newton_schulz`.
    """

    def __init__(self, grid: tuple[int, int], steps: int) -> None:
        super().__init__()
        self.fuse = Fuse(grid, steps)
        self.thred = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, classes: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        """Return both after the block.

        Parameters
        ----------
        classes : float32 Tensor [B, C, h, w]
            Class scores of cells.
        attention : float32 Tensor [B, h, w]
            Not negative, its highest value above 0.
        """
        cells = normalize(classes.flatten(2), dim=1)
        spread = self.fuse(cells.mT @ cells) @ attention.flatten(1)[..., None]  # [B, N, 1]
        threshold = self.thred * attention.amax((1, 2))
        spread = scaled_to_unit(tanhshrink(spread.view_as(attention) / threshold[:, None, None]))
        return classes + classes * spread[:, None], attention + spread


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
