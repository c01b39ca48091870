"""Otsu's threshold, erosion and connected regions of whole batches of maps, on the training device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

LEVELS = 256


def otsu(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Otsu's threshold of each map over 256 levels.

    Parameters
    ----------
    maps : float Tensor [B, H, W]
        In 0..1; levels are ``floor(255 * map)``.

    Returns
    -------
    levels : int64 Tensor [B, H, W]
        The quantised maps.
    thresholds : int64 Tensor [B]
        Level t that parts {0 … t} from {t + 1 … 255} best, the lowest on ties; −1 for a constant map.
    """
    levels = (maps * 255).floor().clamp(0, 255).to(torch.int64)
    flat = levels.flatten(1)
    counts = torch.zeros(len(maps), LEVELS, dtype=torch.float64, device=maps.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float64))
    below, total = counts.cumsum(1), flat.shape[1]
    sums = (counts * torch.arange(LEVELS, device=maps.device)).cumsum(1)
    difference = total * sums - below * sums[:, -1:]
    variance = difference**2 / (below * (total - below)).clamp_min(1)
    best, found = variance.max(1)  # empty levels repeat a variance to the bit, and the first index wins
    return levels, torch.where(best > 0, found, -1)


def erode(mask: Tensor, side: int) -> Tensor:
    """Erode [B, H, W] by a square of odd `side`; what lies beyond the border erodes nothing."""
    return max_pool2d((~mask).float()[:, None], side, 1, side // 2)[:, 0] == 0


def components(mask: Tensor) -> Tensor:
    """Number 4-connected regions.

    Labels spread along whole rows and columns at once, so the rounds count the bends of a region, not its pixels.

    Parameters
    ----------
    mask : bool Tensor [B, H, W]
        Foreground.

    Returns
    -------
    int64 Tensor [B, H, W]
        0 outside; inside, 1 + the largest flat pixel index of the region.
    """
    batch, height, width = mask.shape
    labels = (torch.arange(1, height * width + 1, device=mask.device).view(1, height, width) * mask).expand(
        batch, -1, -1
    )
    while True:
        spread = _spread(_spread(labels, mask).mT, mask.mT).mT
        if torch.equal(spread, labels):
            return labels
        labels = spread


def _spread(labels: Tensor, mask: Tensor) -> Tensor:
    """Largest label of each horizontal run, given to the whole run."""
    runs = (~mask).to(torch.int64).cumsum(-1)  # constant within a run, rising from run to run
    big = labels.shape[-1] * labels.shape[-2] + 1
    forth = (runs * big + labels).cummax(-1).values % big
    back_runs = (~mask).to(torch.int64).flip(-1).cumsum(-1)
    back = (back_runs * big + forth.flip(-1)).cummax(-1).values.flip(-1) % big
    return torch.where(mask, back, 0)


def chosen_region(mask: Tensor, maps: Tensor, *, densest: bool, least_share: float) -> Tensor:
    """One region a map: the largest, or the one of highest mean value.

    Parameters
    ----------
    mask : bool Tensor [B, H, W]
        Foreground.
    maps : float Tensor [B, H, W]
        Values.
    densest : bool
        By mean value instead of area.
    least_share : float
        Share of the image below which the densest region gives way to the largest.

    Returns
    -------
    bool Tensor [B, H, W]
        Part of `mask`; empty where that is.
    """
    pixels = mask[0].numel()
    labels = components(mask).flatten(1)
    areas = torch.zeros(len(mask), pixels + 1, device=mask.device).scatter_add_(1, labels, mask.flatten(1).float())
    best = areas.argmax(1)
    if densest:
        sums = torch.zeros_like(areas).scatter_add_(1, labels, (maps * mask).flatten(1).to(areas))
        dense = torch.where(areas > 0, sums / areas.clamp_min(1), -1.0).argmax(1)
        wide = areas.gather(1, dense[:, None])[:, 0] >= least_share * pixels
        best = torch.where(wide, dense, best)
    return (labels == best[:, None]).view_as(mask) & mask
