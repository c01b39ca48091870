"""SCM's block: maps of a transformer spread along its grid where neighbouring cells agree on their classes.

Source: Bai et al., "… via transformer with implicit spatial calibration", ECCV 2022, and its released code. The
similarity of cells and the graph of neighbours make a matrix X; a few steps of Newton-Schulz towards its inverse filter
the map. They are not replaced by an exact solve: X may be singular, and n steps are the filter
s -> (1 - (1 - 0.002 s^2)^(2^n)) / s of its singular values, which is what was published.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, tanhshrink

from wsoltrain.networks.token_maps import scaled_to_unit

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
