"""Mean-field inference in a dense CRF (Krähenbühl and Koltun, NeurIPS 2011), pair by pair: for small images.

Potts labels, a smoothness kernel on positions and an appearance kernel on positions and colours, each normalised
symmetrically, as CLIP-ES ends with. All N² pairs are written out, so only the size is limited: 56 x 56
pixels have 10 million pairs, 40 MB a kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Lowest probability of which a logarithm is taken.
LEAST = 1e-5


def gaussian(features: Tensor) -> Tensor:
    """Symmetrically normalised Gaussian kernel of all pairs of pixels.

    Parameters
    ----------
    features : float tensor [N, F]
        Already divided by their deviations.

    Returns
    -------
    float tensor [N, N]
        D^-1/2 K D^-1/2 with K = exp(-|f_i - f_j|² / 2) and D its row sums; a pixel is a neighbour of itself.
    """
    # Not by q·k: colours are many deviations long, and neighbours differ by little.
    far = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    kernel = far.square_().div_(-2).exp_()
    root = kernel.sum(dim=1).rsqrt()
    return kernel.mul_(root[:, None]).mul_(root)


def pixel_features(image: Tensor, pixel: tuple[float, float], xy: float, rgb: float | None = None) -> Tensor:
    """Positions, and colours where a deviation is given for them, in deviations.

    Parameters
    ----------
    image : float tensor [h, w, 3]
        Colours in 0..255.
    pixel : (float, float)
        Height and width of a pixel, in the unit of `xy`.
    xy, rgb : float
        Deviations.

    Returns
    -------
    float tensor [h * w, 2 or 5]
    """
    height, width = image.shape[:2]
    rows = torch.arange(height, dtype=image.dtype, device=image.device) * (pixel[0] / xy)
    columns = torch.arange(width, dtype=image.dtype, device=image.device) * (pixel[1] / xy)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)
    return places if rgb is None else torch.cat([places, image.flatten(0, 1) / rgb], dim=1)


def mean_field(scores: Tensor, neighbours: Tensor, iterations: int = 10) -> Tensor:
    """Probabilities of labels after a number of parallel updates.

    Parameters
    ----------
    scores : float tensor [K, N]
        Not negative; a pixel's scores need not sum to one.
    neighbours : float tensor [N, N]
        Sum of the weighted kernels.
    iterations : int

    Returns
    -------
    float tensor [K, N]
        Columns sum to one.
    """
    unary = scores.clamp(min=LEAST).log()
    found = unary.softmax(dim=0)
    for _ in range(iterations):
        found = (unary + found @ neighbours).softmax(dim=0)
    return found
