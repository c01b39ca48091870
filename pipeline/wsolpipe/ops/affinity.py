"""Class-aware attention-based affinity of CLIP-ES (Lin et al., CVPR 2023, section 3.3), without N x N products.

The paper turns the mean attention A of patches into a nearly doubly stochastic matrix by dividing alternately by the
sums of columns and of rows, symmetrises it, squares it, keeps the columns inside boxes around the map's high regions,
and multiplies the map with it. Every one of those steps only scales rows and columns or is a product with A, so here A
stays as it is: the alternating divisions are two vectors r and c with W = diag(r) A diag(c), and the square is two
products with a vector. The result is the same, at N² instead of N³; in float64, since what is left of a map after two
products with a nearly even matrix is a small difference of large numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wsolpipe.maps.foreground import tight_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def balance(attention: Tensor, rounds: int = 3) -> tuple[Tensor, Tensor]:
    """Factors of rows and columns after dividing by column sums, then by row sums, `steps` times.

    Parameters
    ----------
    attention : float tensor [B, N, N]
        Positive.
    rounds : int
        Pairs of divisions.

    Returns
    -------
    rows, columns : float tensor [B, N, 1]
        ``rows * attention * columns.mT`` is the divided matrix; its rows sum to one. Not finite where a sum is 0.
    """
    rows = columns = torch.ones_like(attention[..., :1])
    for _ in range(rounds):
        columns = 1 / (attention.mT @ rows)
        rows = 1 / (attention @ columns)
    return rows, columns


def spread(values: Tensor, attention: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Product of the symmetrised matrix (W + Wᵀ) / 2 with vectors.

    Parameters
    ----------
    values : float tensor [B, N, T]
    attention : float tensor [B, N, N]
    rows, columns : float tensor [B, N, 1]
        As `balance` returns them.

    Returns
    -------
    float tensor [B, N, T]
    """
    return (rows * (attention @ (columns * values)) + columns * (attention.mT @ (rows * values))) / 2


def refine(maps: Tensor, attention: Tensor, masks: Tensor) -> Tensor:
    """Maps refined by the squared affinity inside their masks.

    Parameters
    ----------
    maps : float tensor [B, T, N]
        Class activation maps of N patches.
    attention : float tensor [B, N, N]
        Mean attention of patches to patches; scale does not matter.
    masks : float tensor [B, T, N]
        Columns that count: see `box_masks`.

    Returns
    -------
    float64 tensor [B, T, N]
        Not normalised.
    """
    attention = attention.double()
    rows, columns = balance(attention)
    values = (maps * masks).double().mT
    for _ in range(2):
        values = spread(values, attention, rows, columns)
    return values.mT


def box_masks(maps: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.bool_]:
    """Boxes around the high regions of maps.

    As the authors' code has it: the map is cut to 256 levels; what is above ``threshold`` times the highest level is
    foreground; each 8-connected region gives its tight box, whose far edges are held at one less than the map's size:
    the last row and the last column are in no box.

    Parameters
    ----------
    maps : float array [..., h, w]
        In [0, 1].
    threshold : float
        Share of the highest level; 0.4 for VOC, 0.7 for COCO.

    Returns
    -------
    bool array [..., h, w]
        The union of the boxes; empty where the map is 0 or not finite.
    """
    height, width = maps.shape[-2:]
    levels = (np.nan_to_num(maps).reshape(-1, height, width) * 255).astype(np.uint8)
    masks = np.zeros(levels.shape, np.bool_)
    for mask, level in zip(masks, levels, strict=True):
        boxes, _ = tight_boxes(level > int(threshold * int(level.max())))
        for x0, y0, x1, y1 in boxes.astype(np.intp):
            mask[y0 : min(y1, height - 1), x0 : min(x1, width - 1)] = True
    return masks.reshape(maps.shape)
